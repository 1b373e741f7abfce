"""What a program is told by its environment reaches it to the letter, JSON too."""

from configparser import RawConfigParser
from pathlib import Path

import pytest
from supervisor.datatypes import dict_of_key_value_pairs
from tlim_devstack.failures import StackError
from tlim_devstack.supervision import Program, Supervisor
from tlim_devstack.waiting import wait_until


def environment_as_supervisord_reads_it(home: Path, name: str) -> dict[str, str]:
    config = RawConfigParser()
    config.read(home / "supervisord.conf")
    read: dict[str, str] = dict_of_key_value_pairs(config[f"program:{name}"]["environment"].replace("%%", "%"))
    return read


def test_a_program_gets_its_settings_to_the_letter(tmp_path: Path) -> None:
    settings = {
        "JSON": '[{"issuer": "https://id.example.org", "x": 1}]',
        "URL": "a://b:c%20d@e/f?g=h",
        "NAME": "it's me",
    }
    Supervisor(tmp_path).configure([Program("one", ["true"], settings)])
    assert environment_as_supervisord_reads_it(tmp_path, "one") == settings


def test_a_setting_that_cannot_be_written_down_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StackError, match="both kinds of quotes"):
        Supervisor(tmp_path).configure([Program("one", ["true"], {"JSON": '"it\'s me"'})])


def test_a_program_that_runs_already_goes_on_and_an_unknown_one_is_a_failure(tmp_path: Path) -> None:
    runner = Supervisor(tmp_path)
    runner.configure([Program("one", ["sleep", "600"])])
    runner.launch(background=False)
    try:
        runner.start("one")
        before = runner.pid("one")
        runner.start("one")
        assert runner.pid("one") == before != 0
        with pytest.raises(StackError, match="BAD_NAME"):
            runner.start("two")
    finally:
        runner.shutdown()


def test_a_running_runner_takes_other_programs_while_the_rest_goes_on(tmp_path: Path) -> None:
    runner = Supervisor(tmp_path)
    runner.configure([Program("one", ["sleep", "600"]), Program("two", ["sleep", "600"])])
    runner.launch(background=False)
    try:
        runner.start("one", "two")
        one = runner.pid("one")
        runner.replace(Program("two", ["sleep", "601"]), Program("three", ["sleep", "602"]))
        states = runner.states()
        runner.start("two")
        command = Path(f"/proc/{runner.pid('two')}/cmdline")

        assert (states["two"], states["three"]) == ("STOPPED", "STOPPED")
        assert runner.pid("one") == one
        wait_until(lambda: command.read_bytes() == b"sleep\x00601\x00", "the new command", timeout=20)
    finally:
        runner.shutdown()
