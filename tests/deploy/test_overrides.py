"""The override files of docker-compose.yml: they change what exists, with settings and images that are known."""

import os
import re
import subprocess
from pathlib import Path

import pytest
from tlim_admin.env_file import INSTEAD
from tlim_runtime import variables

from tests.deploy.compose_file import CONTAINERS, OVERRIDES, SETTINGS, containers
from tests.deploy.images import ROOT, locked_images
from tests.deploy.told import assert_the_gateway_reads


def images_of_others(file: Path) -> dict[str, str]:
    """Return the image of each container that runs somebody else's program."""
    images = {name: one.get("image", "") for name, one in containers(file).items()}
    return {name: image for name, image in images.items() if "TLIM_REGISTRY" in image}


@pytest.mark.parametrize("file", OVERRIDES, ids=lambda path: path.stem)
def test_an_override_changes_containers_that_exist_or_adds_one_of_the_lock(file: Path) -> None:
    for name, container in containers(file).items():
        if name not in CONTAINERS and file.name != "loaded-observability.yml":  # behind the file that adds it
            prefixed = locked_images()[name].replace("docker.io/", "${TLIM_REGISTRY:-docker.io}/", 1)
            assert container["image"] == prefixed


@pytest.mark.parametrize("file", OVERRIDES, ids=lambda path: path.stem)
def test_what_an_override_tells_a_container_is_what_it_reads(file: Path) -> None:
    for name, container in containers(file).items():
        told = {one for one in container.get("environment", {}) if one.startswith("TLIM_")}
        if name == "gateway":
            assert_the_gateway_reads(told)
        elif name == "prepare":
            assert told <= INSTEAD.keys()
        elif told:
            fields = {f"TLIM_{field}".upper() for field in SETTINGS[name].model_fields}
            assert told <= fields | {f"{field}_FILE" for field in fields}, name


@pytest.mark.parametrize("file", OVERRIDES, ids=lambda path: path.stem)
def test_a_setting_that_has_an_effect_with_an_override_only_does_not_stop_the_start_there(file: Path) -> None:
    read = set(re.findall(r"\$\{(TLIM_\w+)", file.read_text(encoding="utf-8")))
    told = containers(file).get("prepare", {}).get("environment", {})
    assert told == dict.fromkeys(read & INSTEAD.keys(), "")


@pytest.mark.parametrize("file", OVERRIDES, ids=lambda path: path.stem)
def test_every_variable_that_the_operator_can_set_is_known(file: Path) -> None:
    assert set(re.findall(r"\$\{(TLIM_\w+)", file.read_text(encoding="utf-8"))) <= variables.KNOWN


def test_a_container_waits_for_nothing_that_an_override_takes_away() -> None:
    changed = containers(ROOT / "deploy/compose/external-s3.yml")
    gone = {name for name, container in changed.items() if not container}
    waiting = {name for name, container in CONTAINERS.items() if gone & set(container.get("depends_on", ()))}
    assert gone == {"s3", "bucket"}
    for name in waiting - gone:
        before = CONTAINERS[name]["depends_on"]
        assert changed[name]["depends_on"] == {other: before[other] for other in before if other not in gone}, name


def test_the_page_says_behind_which_overrides_one_stands_that_takes_a_container_away() -> None:
    page = (ROOT / "deploy/compose/README.md").read_text(encoding="utf-8")
    gone = {file.name: {name for name, one in containers(file).items() if not one} for file in OVERRIDES}
    first = {(taker, file.name) for taker, names in gone.items() for file in OVERRIDES
             if file.name != taker and names & containers(file).keys()}  # fmt: skip
    assert first
    assert first == set(re.findall(r"`([\w-]+\.yml)` stands behind `([\w-]+\.yml)`", page))


def test_with_https_the_gateway_may_be_at_any_address() -> None:
    changed = containers(ROOT / "deploy/compose/tls.yml")
    assert changed["gateway"]["environment"]["TLIM_GATEWAY_SCHEME"] == "https"
    assert changed["gateway"]["healthcheck"]["test"][-1] == "https://127.0.0.1:9090/healthz"
    plain = ("--plain-http-at=", "--proxies=")
    without = [one for one in CONTAINERS["prepare"]["command"] if not one.startswith(plain)]
    assert changed["prepare"]["command"] == without


@pytest.mark.parametrize(
    ("digests", "tags"),
    [("docker-compose.yml", "loaded.yml"), ("deploy/compose/observability.yml", "loaded-observability.yml")],
)
def test_what_was_loaded_from_an_archive_has_a_tag_and_no_digest(digests: str, tags: str) -> None:
    loaded = {name: one["image"] for name, one in containers(ROOT / "deploy/compose" / tags).items()}
    assert loaded == {name: image.partition("@")[0] for name, image in images_of_others(ROOT / digests).items()}


def test_the_archive_has_what_containers_run_and_nothing_else(tmp_path: Path) -> None:
    docker = tmp_path / "docker"
    docker.write_text('#!/bin/sh\n[ "$1" != save ] || echo "$@" >"$0.log"\n')
    docker.chmod(0o755)
    subprocess.run(  # noqa: S603
        [ROOT / "scripts/images", "save", tmp_path / "archive"],
        env={"PATH": os.environ["PATH"], "DOCKER": str(docker)},
        check=True,
    )
    saved = docker.with_name("docker.log").read_text(encoding="utf-8").split()[1:]
    names = {path.stem for path in (ROOT / "deploy/packages").glob("*.txt")} - {"builder"} | {"ejabberd"}
    ours = {f"localhost/tlim/{name}:dev" for name in names}
    files = (ROOT / "docker-compose.yml", ROOT / "deploy/compose/observability.yml")
    theirs = {image for file in files for image in images_of_others(file).values()}
    tagged = {image.replace("${TLIM_REGISTRY:-docker.io}", "docker.io").partition("@")[0] for image in theirs}
    assert sorted(saved) == sorted({*ours, *tagged})
