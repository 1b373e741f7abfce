"""Tests do not see the shell that they were started from, nor the system that runs in the clone."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

LOOKS_AROUND = """
import os, time
from pathlib import Path
from tlim_client.profile import Profiles, development_ca

def test_it():
    assert [name for name in os.environ if name.startswith("TLIM_")] == ["TLIM_E2E_XMPP"]
    assert not {"http_proxy", "HTTPS_PROXY", "PGHOST", "AWS_PROFILE", "XDG_CONFIG_HOME", "LC_ALL"} & set(os.environ)
    assert Profiles.of_environment().users() == []
    assert development_ca(Path.cwd()) is None
    assert time.tzname == ("UTC", "UTC")
    Path("made").touch()
    assert Path("made").stat().st_mode & 0o777 == 0o644
    Path("made").unlink()
"""


@pytest.fixture
def lived_in(tmp_path: Path) -> Path:
    """A clone in which a system runs, and the home of a person who is logged in."""
    for file in (".tlim/secrets/ca.pem", "config/tlim/profiles/alice.json", ".config/tlim/profiles/bob.json"):
        (tmp_path / file).parent.mkdir(parents=True)
        (tmp_path / file).write_text("{}")
    (tmp_path / "test_it.py").write_text(LOOKS_AROUND)
    return tmp_path


def test_tests_see_neither_a_running_system_nor_the_shell_nor_its_person(lived_in: Path) -> None:
    shell = {
        "TLIM_HOME": "/nowhere",
        "TLIM_PORT_GATEWAY": "1",
        "TLIM_XMPP_SERVER": "prosody",
        "TLIM_ADMIN_TOKEN": "x",
        "TLIM_PASSWORD": "x",
        "TLIM_PROFILE": "alice",
        "TLIM_TRUST_REQUEST_USER": "yes",
        "TLIM_E2E_XMPP": "prosody",
        "http_proxy": "http://127.0.0.1:9",
        "HTTPS_PROXY": "http://127.0.0.1:9",
        "PGHOST": "x",
        "AWS_PROFILE": "x",
        "HOME": str(lived_in),
        "XDG_CONFIG_HOME": str(lived_in / "config"),
        "LC_ALL": "C",
        "TZ": "Asia/Shanghai",
    }
    plugin = ["-p", "tlim_devstack.pytest_plugin", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", *plugin, "-c", os.devnull, "--rootdir", str(lived_in), "test_it.py"],
        env={**{name: value for name, value in os.environ.items() if not name.startswith("TLIM_")}, **shell},
        cwd=lived_in,
        umask=0o077,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
