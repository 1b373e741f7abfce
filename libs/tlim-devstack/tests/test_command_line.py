"""Whatever goes wrong in `make run` is one line on stderr and exit 1, never a traceback."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from tlim_devstack.credentials import load_or_generate
from tlim_devstack.ejabberd import Ejabberd
from tlim_devstack.failures import StackError
from tlim_devstack.ports import Ports
from tlim_devstack.shell import inherited
from tlim_devstack.xmpp_servers import XmppSettings


def tlim_devstack(command: str, home: Path, **environment: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "tlim_devstack", command],
        env={**os.environ, "TLIM_HOME": str(home), **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_taken_port_is_one_line(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as squatter:
        port = str(squatter.getsockname()[1])
        done = tlim_devstack("run", tmp_path, TLIM_PORT_GATEWAY=port)
    assert done.returncode == 1
    message = f"tlim: port {port} (HTTP gateway) is taken: free it, or set TLIM_PORT_GATEWAY to another port"
    assert done.stderr.strip() == message


@pytest.mark.parametrize(
    ("variable", "value", "expected"),
    [
        ("TLIM_PORT_S3", "many", "tlim: TLIM_PORT_S3 is 'many': it must be a port number, 1 to 65535"),
        ("TLIM_XMPP_SERVER", "openfire", "tlim: TLIM_XMPP_SERVER is 'openfire'; it can be ejabberd or prosody"),
        ("TLIM_PORT_GATWAY", "9190", "tlim: TLIM_PORT_GATWAY: unknown, did you mean TLIM_PORT_GATEWAY?"),
    ],
)
def test_a_wrong_setting_is_one_line(tmp_path: Path, variable: str, value: str, expected: str) -> None:
    done = tlim_devstack("up", tmp_path, **{variable: value})
    assert (done.returncode, done.stderr.strip()) == (1, expected)


def test_the_parts_of_a_stack_do_not_get_the_secrets_of_the_shell() -> None:
    shell = {
        "TLIM_DATABASE_PASSWORD_FILE": "/x",
        "TLIM_NATS_PASSWORD": "x",
        "TLIM_RECALL_WINDOW": "PT1H",
        "PATH": "/bin",
    }
    assert inherited(shell) == {"TLIM_RECALL_WINDOW": "PT1H", "PATH": "/bin"}


def test_a_home_that_is_a_file_is_one_line(tmp_path: Path) -> None:
    home = tmp_path / "file"
    home.touch()
    done = tlim_devstack("up", home)
    assert done.returncode == 1
    assert len(done.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize("name", ["张三", "ünï", "a[1]"])
def test_a_home_in_which_nobody_could_log_in_is_one_line(tmp_path: Path, name: str) -> None:
    home = tmp_path / name
    ejabberd = Ejabberd(XmppSettings(home, Ports(), load_or_generate(home), home / "certificate", "127.0.0.1"))
    with pytest.raises(StackError, match=r"^ejabberd cannot work in .*: set TLIM_HOME to a folder with a plain ASCII"):
        ejabberd.prepare()


def test_demo_users_are_one_pair_per_line_and_stay_the_same(tmp_path: Path) -> None:
    first, second = tlim_devstack("demo-users", tmp_path), tlim_devstack("demo-users", tmp_path)
    assert first.stdout == second.stdout
    assert [line.split()[0] for line in first.stdout.splitlines()] == ["alice", "bob", "carol"]
    assert all(len(line.split()) == 2 for line in first.stdout.splitlines())


def test_stopping_what_does_not_run_is_no_failure(tmp_path: Path) -> None:
    done = tlim_devstack("down", tmp_path / "never started")
    assert (done.returncode, done.stdout.strip()) == (0, "Nothing is running.")


def test_clean_data_removes_everything(tmp_path: Path) -> None:
    home = tmp_path / "home"
    tlim_devstack("demo-users", home)
    assert home.exists()
    assert tlim_devstack("clean-data", home).returncode == 0
    assert not home.exists()
