"""Two nodes of Erlang meet through the relays of a network, which can part them."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import suppress

import pytest_asyncio
from tlim_devstack.layout import system_program
from tlim_devstack.node_network import NodeNetwork

COOKIE = "between-two-nodes-of-a-test"
TELLING = """
    net_kernel:monitor_nodes(true),
    [io:format("nodeup ~s~n", [Node]) || Node <- nodes()],
    Tell = fun Tell() -> receive {What, Node} -> io:format("~s ~s~n", [What, Node]) after 300 -> ok end,
        net_kernel:connect_node('FRIEND@localhost'), Tell() end,
    Tell()."""
"""A node says which nodes come and go, and looks for its friend all the time."""


class Node:
    """A node of Erlang that says what it sees."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    @classmethod
    async def start(cls, name: str, friend: str, mapper: int) -> "Node":
        named = ["-sname", f"{name}@localhost", "-start_epmd", "false", "-setcookie", COOKIE]
        kernel = ["-kernel", "net_ticktime", "4", "inet_dist_use_interface", "{127,0,0,1}"]
        telling = ["-eval", TELLING.replace("FRIEND", friend).replace("\n", " ")]
        program = str(system_program("erl", "erlang-base"))
        environment = {**os.environ, "ERL_EPMD_PORT": str(mapper)}
        return cls(
            await asyncio.create_subprocess_exec(
                program, "-noinput", *named, *kernel, *telling, stdout=asyncio.subprocess.PIPE, env=environment
            )
        )

    async def says(self, text: str) -> None:
        """Wait until it says this."""
        assert self._process.stdout is not None
        async with asyncio.timeout(40):
            while (line := await self._process.stdout.readline()).decode().strip() != text:
                assert line, "it has ended"

    async def end(self) -> None:
        with suppress(ProcessLookupError):
            self._process.kill()
        await self._process.wait()


@pytest_asyncio.fixture
async def network() -> AsyncIterator[NodeNetwork]:
    async with NodeNetwork(["here", "there"]) as network:
        yield network


async def test_two_nodes_lose_each_other_when_their_ways_are_cut_or_silent_and_meet_again(network: NodeNetwork) -> None:
    one = await Node.start("one", "other", network.ports["here"])
    other = await Node.start("other", "one", network.ports["there"])
    try:
        await one.says("nodeup other@localhost")
        await other.says("nodeup one@localhost")
        for way in network.ways.values():
            await way.cut()
        await one.says("nodedown other@localhost")
        await other.says("nodedown one@localhost")
        for way in network.ways.values():
            await way.mend()
        await one.says("nodeup other@localhost")
        for way in network.ways.values():
            way.hush()
        await one.says("nodedown other@localhost")
        for way in network.ways.values():
            await way.mend()
        await one.says("nodeup other@localhost")

        await other.end()
        await one.says("nodedown other@localhost")
        other = await Node.start("other", "one", network.ports["there"])
        await one.says("nodeup other@localhost")
    finally:
        await other.end()
        await one.end()
