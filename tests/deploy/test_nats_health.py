"""The health check of NATS in compose (deploy/nats/healthy): what answers is the test's."""

import subprocess
from pathlib import Path

import pytest

from tests.deploy.images import ROOT

A_MINUTE = 12
"""Checks, five seconds apart."""


class _Checked:
    """The check with a `wget` that succeeds or fails, and a `kill` that says what it was told."""

    def __init__(self, home: Path) -> None:
        self._home = home

    def __call__(self, *, healthy: bool) -> subprocess.CompletedProcess[str]:
        answer = "() { true; }" if healthy else "() { false; }"
        told = {"TMPDIR": str(self._home), "PATH": "/usr/bin:/bin", "BASH_FUNC_wget%%": answer}
        told["BASH_FUNC_kill%%"] = '() { echo "kill $*"; }'
        command = ["/bin/bash", str(ROOT / "deploy/nats/healthy")]
        return subprocess.run(command, env=told, capture_output=True, text=True, check=False)  # noqa: S603


@pytest.fixture
def check(tmp_path: Path) -> _Checked:
    return _Checked(tmp_path)


def test_a_server_that_answers_is_healthy(check: _Checked) -> None:
    done = check(healthy=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_server_that_was_well_and_fails_for_a_minute_is_told_to_end(check: _Checked) -> None:
    check(healthy=True)
    outcomes = [check(healthy=False) for _ in range(A_MINUTE)]
    assert {done.returncode for done in outcomes} == {1}
    assert [done.stdout for done in outcomes[:-1]] == [""] * (A_MINUTE - 1)
    assert outcomes[-1].stdout == "told to end after 12 failures\nkill -TERM 1\n"


def test_a_server_that_still_reads_its_streams_after_its_start_has_ten_minutes(check: _Checked) -> None:
    outcomes = [check(healthy=False).stdout for _ in range(10 * A_MINUTE)]
    assert outcomes[:-1] == [""] * (10 * A_MINUTE - 1)
    assert outcomes[-1].endswith("kill -TERM 1\n")


def test_a_server_that_answers_in_between_gets_its_whole_time_again(check: _Checked) -> None:
    for healthy in (True, *[False] * (A_MINUTE - 1), True):
        check(healthy=healthy)
    assert check(healthy=False).stdout == ""
