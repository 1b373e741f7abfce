"""A relay that falls silent holds everything back, and loses nothing; one that is cut keeps its port."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from tlim_devstack.severable import Severable
from tlim_devstack.waiting import FIRST_FOR_CONNECTIONS


@pytest.fixture
async def echo() -> AsyncIterator[str]:
    """The URL of a server that sends back each line."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            writer.write(line)
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    yield f"tcp://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    server.close()


async def test_what_a_silent_network_held_back_comes_when_it_is_mended(echo: str) -> None:
    async with Severable(echo) as way:
        reader, writer = await asyncio.open_connection("127.0.0.1", way.port)
        way.hush()
        writer.write(b"held back\n")
        late_reader, late_writer = await asyncio.open_connection("127.0.0.1", way.port)
        late_writer.write(b"a new connection\n")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(reader.readline(), 0.05)

        await way.mend()

        assert await reader.readline() == b"held back\n"
        assert await late_reader.readline() == b"a new connection\n"
        writer.close()
        late_writer.close()


async def test_connections_end_when_a_silent_network_is_cut(echo: str) -> None:
    async with Severable(echo) as way:
        reader, writer = await asyncio.open_connection("127.0.0.1", way.port)
        writer.write(b"once\n")
        assert await reader.readline() == b"once\n"
        way.hush()
        await way.cut()
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await reader.readexactly(1)
        await way.mend()
        _, again = await asyncio.open_connection("127.0.0.1", way.port)
        again.close()
        writer.close()


async def test_the_port_of_a_relay_is_none_that_a_connection_gets_while_it_is_cut(echo: str) -> None:
    way = Severable(echo)
    port = way.port
    assert 0 < port < FIRST_FOR_CONNECTIONS
    for _ in range(2):
        await way.mend()
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.close()
        await way.cut()
