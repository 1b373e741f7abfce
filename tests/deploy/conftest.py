"""What the overlays apply, rendered once for all tests: these read it and change nothing."""

from collections.abc import Callable
from typing import Any

import pytest

from tests.deploy.rendering import Resource, rendered


@pytest.fixture(scope="session")
def render(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., list[Resource]]:
    """Return `rendered` with a folder for each call."""

    def anew(overlay: str, *changes: Any) -> list[Resource]:
        return rendered(overlay, tmp_path_factory.mktemp(overlay) / "deploy", *changes)

    return anew


@pytest.fixture(scope="session")
def local(render: Callable[..., list[Resource]]) -> list[Resource]:
    return render("local")


@pytest.fixture(scope="session")
def one_node(render: Callable[..., list[Resource]]) -> list[Resource]:
    return render("one-node")


@pytest.fixture(scope="session")
def production(render: Callable[..., list[Resource]]) -> list[Resource]:
    return render("production")


@pytest.fixture(scope="session", params=["local", "one_node", "production"])
def each(request: pytest.FixtureRequest) -> list[Resource]:
    """Return what an overlay applies, for what holds for each of them."""
    found: list[Resource] = request.getfixturevalue(request.param)
    return found
