"""docker-compose.yml and its overrides, read, and the settings of what runs in their containers."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from tlim_admin.settings import DoctorSettings
from tlim_runtime.provision import ProvisionSettings

from tests.deploy import told
from tests.deploy.images import ROOT

TEXT = (ROOT / "docker-compose.yml").read_text(encoding="utf-8")
COMPOSE: dict[str, Any] = yaml.safe_load(TEXT)
CONTAINERS: dict[str, dict[str, Any]] = COMPOSE["services"]
SETTINGS: told.SettingsByName = {**told.SETTINGS, "streams": ProvisionSettings, "admin": DoctorSettings}
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


def with_those_of_overrides() -> dict[str, dict[str, Any]]:
    """Return all containers: those of docker-compose.yml, and those that an override adds."""
    added = {name: one for file in OVERRIDES for name, one in containers(file).items() if "user" in one}
    return {**added, **CONTAINERS}


def interpolate(text: str, given: Mapping[str, str]) -> str:
    """Return a text as Compose understands it: `${NAME:-default}`, also within a default."""
    inner = re.compile(r"\$\{(\w+)(?::-([^${}]*))?\}")
    while inner.search(text):
        text = inner.sub(lambda found: given.get(found[1]) or found[2] or "", text)
    return text
