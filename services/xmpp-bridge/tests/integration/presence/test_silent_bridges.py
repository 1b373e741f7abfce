"""A bridge whose machine has vanished is given up, although nobody has closed its connection."""

from collections.abc import Iterator
from typing import Any

import pytest
from tlim_devstack.ejabberd import Ejabberd
from tlim_devstack.supervision import Program


class ImpatientEjabberd(Ejabberd):
    """One that gives a silent component up after three seconds."""

    def prepare(self) -> Program:
        program, config = super().prepare(), self.home / "ejabberd.yml"
        text = config.read_text().replace("silence: 90s", "silence: 3s")
        assert "silence: 3s" in text
        config.write_text(text)
        return program


@pytest.fixture(scope="module")
def xmpp_server(start_xmpp_server: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    server = start_xmpp_server(tmp_path_factory.mktemp("impatient"), ImpatientEjabberd)
    yield server
    server.stop()


async def test_a_bridge_that_is_silent_for_long_is_given_up_and_another_one_gets_what_comes_next(
    scene: Any, eventually: Any
) -> None:
    both = [await scene.listener(), await scene.listener()]
    device = await scene.device(await scene.person(), managed=False)
    device.write("one")
    await device.settles()
    for one in both:
        await one.barrier()
    living, silent = sorted(both, key=lambda one: "one" in one.diverted)

    async def is_given_up() -> None:
        await living.barrier()
        assert silent.ended.is_set()

    await eventually(is_given_up)
    device.write("two")
    await living.is_sent("two")
    assert (silent.diverted, living.diverted) == (["one"], ["two"])
