"""What does not come back by itself is started again, and the process runner outlives a full disk."""

import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest
from tlim_devstack.failures import StackError
from tlim_devstack.keeper import Keeper, NatsHealth
from tlim_devstack.supervision import Program, Supervisor
from tlim_devstack.waiting import free_port, wait_until


class FakePrograms:
    """A process runner whose programs start and stop at once."""

    def __init__(self, **states: str) -> None:
        self.now = {"nats": "RUNNING", "postgres": "RUNNING", "s3": "RUNNING", **states}
        self.done: list[str] = []
        self.is_silent = False

    def states(self) -> dict[str, str]:
        return dict(self.now)

    def start(self, *names: str) -> None:
        self.done += [f"start {name}" for name in names]
        self.now.update(dict.fromkeys(names, "RUNNING"))

    def stop(self, names: list[str]) -> None:
        self.done += [f"stop {name}" for name in names]
        self.now.update(dict.fromkeys(names, "STOPPED"))

    def kill(self, name: str) -> None:
        self.done.append(f"kill {name}")
        if self.is_silent:
            raise StackError("supervisord does not answer")


class Disk:
    def __init__(self, directory: Path) -> None:
        self.is_broken = self.has_room = False
        self.s3_free = 0.5
        self.held = directory / "nats-is-held"

    def keeper(self, programs: FakePrograms) -> Keeper:
        return Keeper(
            programs,
            nats_is_broken=lambda: self.is_broken,
            has_room=lambda: self.has_room,
            s3_free=lambda: self.s3_free,
            held=self.held,
        )


@pytest.fixture
def disk(tmp_path: Path) -> Disk:
    return Disk(tmp_path)


def test_what_was_given_up_is_started_again(disk: Disk) -> None:
    programs = FakePrograms(postgres="FATAL")
    disk.keeper(programs).look()
    assert programs.done == ["start postgres"]


def test_nats_is_stopped_while_its_disk_is_full_and_started_when_there_is_space(disk: Disk) -> None:
    programs = FakePrograms()
    keeper = disk.keeper(programs)
    keeper.look()
    assert programs.done == []
    disk.is_broken = True
    keeper.look()
    keeper.look()
    assert programs.done == ["stop nats"]
    disk.has_room, disk.is_broken = True, False
    keeper.look()
    keeper.look()
    assert programs.done == ["stop nats", "start nats"]


def test_s3_is_started_anew_once_when_its_disk_was_full_and_has_space_again(disk: Disk) -> None:
    programs = FakePrograms()
    keeper = disk.keeper(programs)
    for disk.s3_free in (0.015, 0.005, 0.015, 0.0):
        keeper.look()
    assert programs.done == []
    for disk.s3_free in (0.03, 0.03, 0.015, 0.5):
        keeper.look()
    assert programs.done == ["kill s3"]


def test_s3_is_started_anew_although_the_process_runner_did_not_answer_at_first(disk: Disk) -> None:
    programs = FakePrograms()
    keeper = disk.keeper(programs)
    disk.s3_free = 0.0
    keeper.look()
    disk.s3_free, programs.is_silent = 0.5, True
    with pytest.raises(StackError):
        keeper.look()
    programs.is_silent = False
    for _ in range(2):
        keeper.look()
    assert programs.done == ["kill s3", "kill s3"]
    assert programs.now["s3"] == "RUNNING"


def test_nats_is_started_anew_at_once_where_there_is_space_already(disk: Disk) -> None:
    programs = FakePrograms()
    disk.is_broken = disk.has_room = True
    disk.keeper(programs).look()
    assert programs.done == ["stop nats", "start nats"]


def test_another_keeper_goes_on_where_the_first_one_ended(disk: Disk) -> None:
    programs = FakePrograms()
    disk.is_broken = True
    disk.keeper(programs).look()
    disk.has_room, disk.is_broken = True, False
    disk.keeper(programs).look()
    assert programs.done == ["stop nats", "start nats"]


def test_another_keeper_leaves_stopped_what_somebody_has_stopped(disk: Disk) -> None:
    programs = FakePrograms()
    disk.is_broken = disk.has_room = True
    keeper = disk.keeper(programs)
    keeper.look()
    disk.is_broken = False
    keeper.look()
    programs.now["nats"] = "STOPPED"
    disk.keeper(programs).look()
    assert programs.done == ["stop nats", "start nats"]


def test_nats_is_stopped_and_started_where_the_full_disk_takes_no_file_either(disk: Disk) -> None:
    disk.held = Path("/proc/nats-is-held")
    programs = FakePrograms()
    disk.is_broken = disk.has_room = True
    disk.keeper(programs).look()
    assert programs.done == ["stop nats", "start nats"]


def test_what_somebody_has_stopped_stays_stopped(disk: Disk) -> None:
    programs = FakePrograms()
    keeper = disk.keeper(programs)
    keeper.look()
    disk.has_room = True
    programs.now = {"nats": "STOPPED", "postgres": "STOPPED", "s3": "STOPPED"}
    keeper.look()
    assert programs.done == []


class Monitoring(BaseHTTPRequestHandler):
    """The monitoring port of a made-up NATS server; `error` is what is wrong with it."""

    error = ""

    def do_GET(self) -> None:
        self.send_response(503 if self.error else 200)
        self.end_headers()
        self.wfile.write(json.dumps({"status": "unavailable", "error": self.error}).encode())

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class' name
        """Print nothing."""


@pytest.fixture
def monitoring(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    monkeypatch.setattr(Monitoring, "error", "")
    with HTTPServer(("127.0.0.1", 0), Monitoring) as server:
        Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server.server_port
        server.shutdown()


def test_a_lost_write_is_seen_and_a_server_that_still_reads_its_streams_is_left_alone(monitoring: int) -> None:
    pids = [1]
    health = NatsHealth(monitoring, "/healthz", lambda: pids[-1])
    Monitoring.error = "JetStream not enabled"
    assert not health.is_broken()  # it has just been started
    Monitoring.error = ""
    assert not health.is_broken()
    Monitoring.error = "JetStream not enabled"
    assert health.is_broken()
    pids.append(2)
    assert not health.is_broken()
    Monitoring.error = "JetStream stream '$G > TLIM_IN' write error: no space left on device"
    assert health.is_broken()


def test_a_nats_server_that_is_away_has_lost_nothing() -> None:
    assert not NatsHealth(free_port(), "/healthz", lambda: 1).is_broken()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_logs_on_a_full_disk_do_not_end_the_process_runner(tmp_path: Path) -> None:
    runner = Supervisor(tmp_path)
    runner.configure([Program("chatty", ["yes"])])
    for name in ("supervisord.out", "supervisord.log", "chatty.log"):
        (runner.logs / name).symlink_to("/dev/full")
    runner.launch(background=False)
    try:
        for _ in range(3):
            runner.start("chatty")
            wait_until(lambda: runner.states()["chatty"] == "RUNNING", "the program")
            runner.stop(["chatty"])
        assert runner.is_running()
    finally:
        runner.shutdown()
