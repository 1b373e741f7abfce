"""What ejabberd's start script makes of its environment. The programs that it calls are made up."""

import os
import subprocess
from pathlib import Path

import pytest

from tests.deploy.rendering import DEPLOY

MADE_UP = {
    "find": "echo /usr/lib/erlang/ejabberd-1",
    "erl": 'echo "authority=${XMPP_SQL_CA_FILE:-none}"',
    "envsubst": "cat",
}


def started(folder: Path, options: str, *words: str) -> subprocess.CompletedProcess[str]:
    """Run the script with these options of PostgreSQL; erl says which authority it is given."""
    for name, script in MADE_UP.items():
        program = folder / name
        program.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
        program.chmod(0o755)
    environment = {"PATH": f"{folder}:{os.environ['PATH']}", "HOME": str(folder), "XMPP_SQL_OPTIONS": options}
    command = ["sh", str(DEPLOY / "ejabberd/start"), *words]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)  # noqa: S603


@pytest.mark.parametrize("words", ["make-tables", "wait-for-tables"])
@pytest.mark.parametrize(
    ("options", "authority"),
    [
        ("?sslmode=verify-full", "/etc/postgres/ca.pem"),
        ("?application_name=ejabberd&sslmode=verify-ca", "/etc/postgres/ca.pem"),
        ("?ssl=verify-full", "/etc/postgres/ca.pem"),
        ("?sslmode=disable", "none"),
        ("?application_name=ejabberd", "none"),
        ("", "none"),
    ],
)
def test_postgresql_is_verified_if_the_options_ask_for_it(
    tmp_path: Path, options: str, authority: str, words: str
) -> None:
    done = started(tmp_path, options, words)
    assert (done.returncode, done.stdout) == (0, f"authority={authority}\n")


@pytest.mark.parametrize("words", [["make-tables"], ["wait-for-tables"], []])
@pytest.mark.parametrize("options", ["?sslmode=require", "?sslmode=prefer", "?ssl=require", "?a=b&sslmode=allow"])
def test_it_does_not_start_in_the_clear_where_the_services_speak_tls(
    tmp_path: Path, options: str, words: list[str]
) -> None:
    done = started(tmp_path, options, *words)
    assert (done.returncode, done.stdout) == (64, "")
    (line,) = done.stderr.splitlines()
    assert options in line
    assert "sslmode=verify-full" in line
