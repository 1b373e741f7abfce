"""The override files of docker-compose.yml: they change what exists, with settings and images that are known."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from tlim_runtime import variables

from tests.deploy.compose_file import CONTAINERS, SETTINGS
from tests.deploy.images import ROOT, locked_images
from tests.deploy.told import assert_the_gateway_reads

OVERRIDES = sorted((ROOT / "deploy/compose").glob("*.yml"))


class Loader(yaml.SafeLoader):
    """Reads the tags of Compose, `!reset` and `!override`, as if they were not there."""


def _untagged(loader: yaml.SafeLoader, _tag: str, node: yaml.Node) -> Any:
    if isinstance(node, yaml.MappingNode):
        return loader.construct_mapping(node, deep=True)
    return loader.construct_sequence(node, deep=True) if isinstance(node, yaml.SequenceNode) else None


Loader.add_multi_constructor("!", _untagged)


def containers(file: Path) -> dict[str, dict[str, Any]]:
    """Return what a file says about each container; nothing about one that it takes away."""
    read = yaml.load(file.read_text(encoding="utf-8"), Loader)  # noqa: S506
    return {name: what or {} for name, what in read["services"].items()}


@pytest.mark.parametrize("file", OVERRIDES, ids=lambda path: path.stem)
def test_an_override_changes_containers_that_exist_or_adds_one_of_the_lock(file: Path) -> None:
    for name, container in containers(file).items():
        if name not in CONTAINERS:
            prefixed = locked_images()[name].replace("docker.io/", "${TLIM_REGISTRY:-docker.io}/", 1)
            assert container["image"] == prefixed


@pytest.mark.parametrize("file", OVERRIDES, ids=lambda path: path.stem)
def test_what_an_override_tells_a_container_is_what_it_reads(file: Path) -> None:
    for name, container in containers(file).items():
        told = {one for one in container.get("environment", {}) if one.startswith("TLIM_")}
        if name == "gateway":
            assert_the_gateway_reads(told)
        elif told:
            fields = {f"TLIM_{field}".upper() for field in SETTINGS[name].model_fields}
            assert told <= fields | {f"{field}_FILE" for field in fields}, name


@pytest.mark.parametrize("file", OVERRIDES, ids=lambda path: path.stem)
def test_every_variable_that_the_operator_can_set_is_known(file: Path) -> None:
    assert set(re.findall(r"\$\{(TLIM_\w+)", file.read_text(encoding="utf-8"))) <= variables.KNOWN


def test_a_container_waits_for_nothing_that_an_override_takes_away() -> None:
    changed = containers(ROOT / "deploy/compose/external-s3.yml")
    gone = {name for name, container in changed.items() if not container}
    waiting = {name for name, container in CONTAINERS.items() if gone & set(container.get("depends_on", ()))}
    assert gone == {"s3", "bucket"}
    for name in waiting - gone:
        assert gone.isdisjoint(changed[name]["depends_on"]), name


def test_the_images_of_an_archive_are_those_of_the_lock_without_their_digests() -> None:
    theirs = {name: one["image"] for name, one in CONTAINERS.items() if "TLIM_REGISTRY" in one["image"]}
    loaded = {name: one["image"] for name, one in containers(ROOT / "deploy/compose/loaded.yml").items()}
    assert loaded == {name: image.partition("@")[0] for name, image in theirs.items()}
