"""What the overlays apply, rendered once for all tests: these read it and change nothing."""

import pytest

from tests.deploy.rendering import Resource, rendered


@pytest.fixture(scope="session")
def local(tmp_path_factory: pytest.TempPathFactory) -> list[Resource]:
    return rendered("local", tmp_path_factory.mktemp("local") / "deploy")


@pytest.fixture(scope="session")
def one_node(tmp_path_factory: pytest.TempPathFactory) -> list[Resource]:
    return rendered("one-node", tmp_path_factory.mktemp("one-node") / "deploy")


@pytest.fixture(scope="session")
def production(tmp_path_factory: pytest.TempPathFactory) -> list[Resource]:
    return rendered("production", tmp_path_factory.mktemp("production") / "deploy")


@pytest.fixture(scope="session", params=["local", "one_node", "production"])
def each(request: pytest.FixtureRequest) -> list[Resource]:
    """Return what an overlay applies, for what holds for each of them."""
    found: list[Resource] = request.getfixturevalue(request.param)
    return found
