"""What a program is told by its environment reaches it to the letter, JSON too."""

from configparser import RawConfigParser
from pathlib import Path

import pytest
from supervisor.datatypes import dict_of_key_value_pairs
from tlim_devstack.failures import StackError
from tlim_devstack.supervision import Program, Supervisor


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
