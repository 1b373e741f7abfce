"""A cluster without a way to the registries of others: the lines of deploy/k8s/README.md, added to an overlay."""

from pathlib import Path

import pytest

from tests.deploy.images import locked_images
from tests.deploy.pages import shown
from tests.deploy.rendering import DEPLOY, Resource, containers, pods, rendered
from tests.deploy.told import SERVICES

OURS = {*SERVICES, "admin", "ejabberd"}


def as_the_page_says(_overlay: Path, kustomization: Resource) -> None:
    kustomization.setdefault("images", []).extend(shown(DEPLOY / "k8s/README.md", "images"))


@pytest.mark.parametrize("overlay", ["local", "production"])  # one-node has its images from an archive, without digests
def test_every_image_of_others_comes_from_it_with_the_digest_of_the_lock(overlay: str, tmp_path: Path) -> None:
    resources = rendered(overlay, tmp_path / "deploy", edit=as_the_page_says)
    images = {container["image"] for _, pod in pods(resources) for container in containers(pod)}
    others = {image for image in images if image.rpartition(":")[0].rpartition("/")[2] not in OURS}
    mirrored = {one.replace("docker.io/", "registry.example.com/") for one in locked_images().values()}
    assert others
    assert others <= mirrored
