"""The component that makes a backup each night: it runs as the operator's command does, and keeps a week of them."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.deploy.rendering import (
    RELEASES,
    Resource,
    assert_no_variable_is_used_before_it_is_set,
    assert_the_api_server_takes,
    named,
)


@pytest.fixture(scope="module")
def resources(render: Callable[..., list[Resource]]) -> list[Resource]:
    return render("production", ("cert-manager", "backup-volume", "backup-schedule"))


def pod(resources: list[Resource], name: str) -> Resource:
    """Return the pod of a CronJob, as a copy that may be changed."""
    found: Resource = named(resources, "CronJob")[name]["spec"]["jobTemplate"]["spec"]["template"]
    return {**found, "spec": {**found["spec"], "containers": [{**found["spec"]["containers"][0]}]}}


@pytest.mark.parametrize("release", RELEASES)
def test_it_is_what_the_api_server_takes(resources: list[Resource], release: str) -> None:
    assert_the_api_server_takes(resources, release)
    assert_no_variable_is_used_before_it_is_set(resources)


def test_it_is_the_operators_command_in_all_but_its_words(resources: list[Resource]) -> None:
    backup, admin = pod(resources, "backup"), pod(resources, "admin")
    for one in (backup, admin):
        words = one["spec"]["containers"][0]
        words.pop("args", None)
        words.pop("command")
    assert backup == admin


def test_it_runs_each_night_and_never_twice_at_once(resources: list[Resource]) -> None:
    spec = named(resources, "CronJob")["backup"]["spec"]
    assert "suspend" not in spec
    assert spec["concurrencyPolicy"] == "Forbid"
    assert spec["schedule"].split()[2:] == ["*", "*", "*"]


@pytest.mark.parametrize("works", [True, False])
def test_a_week_of_backups_stays_and_older_ones_go_only_after_a_new_one(
    resources: list[Resource], tmp_path: Path, works: bool
) -> None:
    *shell, script = pod(resources, "backup")["spec"]["containers"][0]["command"]
    folder, command = tmp_path / "backup", tmp_path / "bin/tlim-admin"
    for name, days in (("2026-11-01", 28), ("2026-11-23", 6), ("lost+found", 28)):
        (folder / name / "objects").mkdir(parents=True)
        os.utime(folder / name, times=(then := (folder / name).stat().st_mtime - days * 86_400, then))
    command.parent.mkdir()
    command.write_text('#!/bin/sh\n[ "$1" = backup ] && mkdir "$2"\n' if works else "#!/bin/sh\nexit 1\n")
    command.chmod(0o755)

    path = f"{command.parent}:{os.environ['PATH']}"
    done = subprocess.run(  # noqa: S603
        [*shell, script.replace("/backup/", f"{folder}/").replace("find /backup", f"find {folder}")],
        env={**os.environ, "PATH": path},
        check=False,
    )

    there = {one.name for one in folder.iterdir()}
    assert (done.returncode == 0, "2026-11-01" not in there, len(there)) == (works, works, 3)
    assert {"2026-11-23", "lost+found"} <= there
