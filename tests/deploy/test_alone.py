"""Who deletes a pod by force gets a new one while the old server still runs: both would write on one volume."""

import fcntl
import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest
from tlim_devstack.waiting import wait_until

from tests.deploy.images import ROOT
from tests.deploy.rendering import Resource, pods

TRIES_THE_LOCK = "flock --nonblock {lock} true && echo free || echo held"


class Server(NamedTuple):
    """What a container runs, with a folder of ours in place of its volume."""

    command: Sequence[str]
    environment: Mapping[str, str]
    lock: Path


def server_of(resources: list[Resource], name: str, folder: Path) -> Server:
    (pod,) = [pod for name_of, pod in pods(resources) if name_of == name]
    (container,) = pod["containers"]
    (volume,) = [one["mountPath"] for one in container["volumeMounts"] if one["name"] == "data"]
    words = [*container["command"], *container.get("args", ())]
    lock = folder / "lock"
    command = [word.replace(f"{volume}/lock", str(lock)).replace("/etc/nats/routes", "/dev/null") for word in words]
    return Server(command, _with_programs(folder, lock), lock)


def _with_programs(folder: Path, lock: Path) -> dict[str, str]:
    """Make programs with the names of the servers, which only say whether the lock is held while they run."""
    servers = dict.fromkeys(("nats-server", "docker-entrypoint.sh", "weed", "erl"), TRIES_THE_LOCK.format(lock=lock))
    for name, script in {**servers, "envsubst": "cat", "find": "echo /usr/lib/erlang/ejabberd-1"}.items():
        program = folder / name
        program.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
        program.chmod(0o755)
    return {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}"}


def ejabberd(folder: Path) -> Server:
    for secret in ("component", "xmpp-api"):
        (folder / secret).write_text("secret", encoding="ascii")
    script = (ROOT / "deploy/ejabberd/start").read_text(encoding="utf-8")
    script = script.replace("/etc/tlim/ejabberd.yml", "/dev/null").replace("/tmp/", f"{folder}/")  # noqa: S108
    (folder / "start").write_text(script, encoding="utf-8")
    told = {"HOME": str(folder), "XMPP_SECRETS": str(folder), "XMPP_DOMAIN": "example.org"}
    lock = folder / "lock"
    return Server(["sh", str(folder / "start")], {**_with_programs(folder, lock), **told}, lock)


@pytest.fixture(params=["nats", "postgres", "s3", "nats of a cluster", "ejabberd"])
def server(request: pytest.FixtureRequest, local: list[Resource], production: list[Resource], tmp_path: Path) -> Server:
    if request.param == "ejabberd":
        return ejabberd(tmp_path)
    name, _, of_a_cluster = request.param.partition(" ")
    return server_of(production if of_a_cluster else local, name, tmp_path)


def test_a_server_waits_until_nobody_else_has_its_volume_and_keeps_it_while_it_runs(server: Server) -> None:
    server.lock.touch()
    inode = f":{server.lock.stat().st_ino} "
    with server.lock.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        process = subprocess.Popen(  # noqa: S603 - what the manifests name
            server.command, env=server.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        wait_until(lambda: _waits_for(inode) or process.poll() is not None, "the server waits")
    said, complained = process.communicate(timeout=60)
    assert (process.returncode, said) == (0, "held\n"), complained
    assert complained == "another server has this volume: waiting for its end\n"


def test_a_server_that_finds_its_volume_free_says_nothing(server: Server) -> None:
    done = subprocess.run(  # noqa: S603 - what the manifests name
        server.command, env=server.environment, capture_output=True, text=True, check=True, timeout=60
    )
    assert (done.stdout, done.stderr) == ("held\n", "")


def _waits_for(inode: str) -> bool:
    waiting = Path("/proc/locks").read_text(encoding="ascii").splitlines()
    return any(" -> FLOCK " in line and inode in line for line in waiting)
