"""Who deletes a pod by force gets a new one while the old server still runs: both would write on one volume."""

import fcntl
import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from tlim_devstack.waiting import wait_until

from tests.deploy.images import ROOT
from tests.deploy.rendering import Resource, pods


def assert_it_waits(lock: Path, command: Sequence[str], environment: Mapping[str, str] | None = None) -> None:
    """Run the command while somebody else has the lock, until it waits for that and has printed nothing."""
    lock.touch()
    inode = f":{lock.stat().st_ino} "
    with lock.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        process = subprocess.Popen(  # noqa: S603 - what the manifests name
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        try:
            wait_until(lambda: _waits_for(inode) or process.poll() is not None, "the command waits")
            has_ended = process.poll() is not None
        finally:
            process.kill()
    said, _ = process.communicate(timeout=20)  # what waited for the lock has it now, and ends
    assert not has_ended, said


def _waits_for(inode: str) -> bool:
    waiting = Path("/proc/locks").read_text(encoding="ascii").splitlines()
    return any(" -> FLOCK " in line and inode in line for line in waiting)


def command_of(resources: list[Resource], name: str, folder: Path) -> list[str]:
    """Return what the container runs, with this folder in place of its volume."""
    (pod,) = [pod for name_of, pod in pods(resources) if name_of == name]
    (container,) = pod["containers"]
    (volume,) = [one["mountPath"] for one in container["volumeMounts"] if one["name"] == "data"]
    return [part.replace(volume, str(folder)) for part in [*container["command"], *container.get("args", ())]]


@pytest.mark.parametrize("server", ["nats", "postgres", "s3"])
def test_a_server_of_the_local_overlay_waits(local: list[Resource], server: str, tmp_path: Path) -> None:
    assert_it_waits(tmp_path / "lock", command_of(local, server, tmp_path))


def test_a_node_of_the_nats_cluster_waits(production: list[Resource], tmp_path: Path) -> None:
    assert_it_waits(tmp_path / "lock", command_of(production, "nats", tmp_path))


def test_ejabberd_waits(tmp_path: Path) -> None:
    for secret in ("component", "xmpp-api"):
        (tmp_path / secret).write_text("secret", encoding="ascii")
    told = {"HOME": str(tmp_path), "XMPP_SECRETS": str(tmp_path), "XMPP_DOMAIN": "example.org"}
    assert_it_waits(tmp_path / "lock", ["sh", str(ROOT / "deploy/ejabberd/start")], {**os.environ, **told})


def test_a_server_that_has_the_volume_alone_becomes_what_it_is_told(local: list[Resource], tmp_path: Path) -> None:
    command = command_of(local, "nats", tmp_path)
    script = command[: command.index("nats-server")]
    begun = subprocess.run([*script, "echo", "two  words"], capture_output=True, text=True, check=True)  # noqa: S603
    assert begun.stdout == "two  words\n"
