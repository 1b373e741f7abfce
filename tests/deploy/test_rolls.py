"""A changed configuration of a server is read: its ConfigMap gets another name, and so its pods are made anew."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.deploy.rendering import Resource, named, pods

CONFIGURED = {"gateway": ("caddy/Caddyfile", "caddy/run"), "nats": ("nats/nats.conf",)}
"""Workloads → their files below deploy/."""


def mounted(resources: list[Resource]) -> dict[str, set[str]]:
    """Return the ConfigMaps that each of these workloads mounts, all of which are there."""
    found = {name: set(_config_maps(pod)) for name, pod in pods(resources) if name in CONFIGURED}
    assert all(names <= named(resources, "ConfigMap").keys() for names in found.values())
    return found


def _config_maps(pod: Resource) -> Iterator[str]:
    for volume in pod["volumes"]:
        for source in volume.get("projected", {}).get("sources", [volume]):
            if "configMap" in source:
                yield source["configMap"]["name"]


@pytest.mark.parametrize("file", [file for files in CONFIGURED.values() for file in files])
@pytest.mark.parametrize("overlay", ["local", "production"])
def test_a_changed_file_rolls_the_pods_that_read_it_and_no_others(
    render: Callable[..., list[Resource]], request: pytest.FixtureRequest, overlay: str, file: str
) -> None:
    def change(folder: Path, _kustomization: Resource) -> None:
        changed = folder.parents[2] / file
        changed.write_text(changed.read_text(encoding="utf-8") + "\n# changed\n", encoding="utf-8")

    before, after = mounted(request.getfixturevalue(overlay)), mounted(render(overlay, (), change))

    assert {name for name in CONFIGURED if before[name] != after[name]} == {
        name for name, files in CONFIGURED.items() if file in files
    }
