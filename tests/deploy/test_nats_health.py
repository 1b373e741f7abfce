"""The health check of NATS in compose (deploy/nats/healthy): what answers is the test's."""

import subprocess
from pathlib import Path

import pytest

from tests.deploy.images import ROOT

ENDED_AFTER = 12
"""Failures in a row; the checks are five seconds apart."""

# Each as nats-server 2.15 writes it.
_HEAD = "HTTP/1.0 {}\r\nContent-Type: application/json\r\n\r\n"
WELL = _HEAD.format("200 OK") + '{"status":"ok"}'
READING = _HEAD.format("503 Service Unavailable") + '{"status":"error","error":"server not ready"}'
DISABLED = _HEAD.format("503 Service Unavailable") + '{"status":"unavailable","error":"JetStream not enabled"}'
REASON = "JetStream stream '$G > TLIM_IN' write error: no space left on device"
WRITE_ERROR = _HEAD.format("503 Service Unavailable") + f'{{"status":"unavailable","error":"{REASON}"}}'
SILENCE = ""
_ANSWERING = """() {
    [ "$2 $3 $4" = "nc 127.0.0.1 8222" ] && [ "$(head -n 1)" = $'GET /healthz HTTP/1.0\\r' ] && printf %s "$ANSWER"
}"""


class _Checked:
    """The check with a `timeout` that gives the answer of `nc`, and a `kill` that says what it was told."""

    def __init__(self, home: Path) -> None:
        self._home = home

    def __call__(self, answer: str) -> subprocess.CompletedProcess[str]:
        told = {"TMPDIR": str(self._home), "PATH": "/usr/bin:/bin", "ANSWER": answer}
        told["BASH_FUNC_timeout%%"] = _ANSWERING
        told["BASH_FUNC_kill%%"] = '() { echo "kill $*"; }'
        command = ["/bin/bash", str(ROOT / "deploy/nats/healthy")]
        return subprocess.run(command, env=told, capture_output=True, text=True, check=False)  # noqa: S603


@pytest.fixture
def check(tmp_path: Path) -> _Checked:
    return _Checked(tmp_path)


def is_told_to_end(done: subprocess.CompletedProcess[str]) -> bool:
    assert done.returncode == 1
    return done.stdout.endswith("told to end after twelve failures\nkill -TERM 1\n")


def test_a_server_that_answers_is_healthy(check: _Checked) -> None:
    done = check(WELL)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("answer", [SILENCE, DISABLED, WRITE_ERROR])
def test_a_server_that_was_well_and_fails_twelve_times_is_told_to_end(check: _Checked, answer: str) -> None:
    check(WELL)
    outcomes = [is_told_to_end(check(answer)) for _ in range(ENDED_AFTER)]
    assert outcomes == [False] * (ENDED_AFTER - 1) + [True]


def test_a_server_that_does_not_end_when_it_is_told_is_ended(check: _Checked) -> None:
    check(WELL)
    told = [check(SILENCE).stdout.splitlines()[-1] for _ in range(2 * ENDED_AFTER)]
    assert told == ["no answer"] * (ENDED_AFTER - 1) + ["kill -TERM 1"] * ENDED_AFTER + ["kill -QUIT 1"]


def test_a_server_that_failed_to_write_since_its_start_is_told_to_end(check: _Checked) -> None:
    outcomes = [is_told_to_end(check(WRITE_ERROR)) for _ in range(ENDED_AFTER)]
    assert outcomes == [False] * (ENDED_AFTER - 1) + [True]


def test_a_server_that_still_reads_its_streams_after_its_start_is_left_alone_for_as_long_as_that_takes(
    check: _Checked,
) -> None:
    for answer in (SILENCE, READING, DISABLED):
        assert not any(is_told_to_end(check(answer)) for _ in range(4 * ENDED_AFTER))


@pytest.mark.parametrize("between", [WELL, READING])
def test_only_failures_in_a_row_count(check: _Checked, between: str) -> None:
    for answer in (*[WRITE_ERROR] * (ENDED_AFTER - 1), between, *[WRITE_ERROR] * (ENDED_AFTER - 1)):
        assert "kill" not in check(answer).stdout


def test_the_reason_is_shown(check: _Checked) -> None:
    assert REASON in check(WRITE_ERROR).stdout
    assert check(SILENCE).stdout == "no answer\n"
