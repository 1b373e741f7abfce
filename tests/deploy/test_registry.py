"""A cluster without a way to the registries of others: the lines of deploy/k8s/README.md, added to an overlay."""

from pathlib import Path

from tests.deploy.images import locked_images
from tests.deploy.pages import shown
from tests.deploy.rendering import DEPLOY, Resource, containers, pods, rendered


def as_the_page_says(_overlay: Path, kustomization: Resource) -> None:
    kustomization["images"] += shown(DEPLOY / "k8s/README.md", "images")


def test_every_image_of_others_comes_from_it_with_the_digest_of_the_lock(tmp_path: Path) -> None:
    resources = rendered("local", tmp_path / "deploy", edit=as_the_page_says)
    images = {container["image"] for _, pod in pods(resources) for container in containers(pod)}
    others = {image for image in images if not image.startswith("tlim/")}
    mirrored = {one.replace("docker.io/", "registry.example.com/") for one in locked_images().values()}
    assert len(others) == 4
    assert others <= mirrored
