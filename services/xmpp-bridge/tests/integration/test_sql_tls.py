"""A node of a cluster of ejabberd reaches a PostgreSQL that speaks TLS, and no other server (tlim_sql_tls.erl)."""

import asyncio
import os
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
from tlim_devstack.certificates import ensure_certificates
from tlim_devstack.layout import DEPLOY
from tlim_devstack.tls_door import POSTGRES_ASKS, postgres_door
from tlim_devstack.waiting import free_port

IN_THE_CERTIFICATE, NOT_IN_IT = "localhost", "postgres.example"


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
    writer.close()


@pytest.fixture(scope="module")
def modules(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("modules")
    command = ["erlc", "-o", str(folder), str(DEPLOY / "ejabberd/tlim_sql_tls.erl")]
    subprocess.run(command, check=True)  # noqa: S603
    return folder


@asynccontextmanager
async def node(modules: Path, authority: Path, server: str, options: str) -> AsyncIterator[int]:
    """Run an Erlang node with the way open; yield the port of loopback."""
    port = free_port()
    names = modules / "inetrc"
    names.write_text(f'{{host, {{127,0,0,1}}, ["{NOT_IN_IT}"]}}. {{lookup, [file, native]}}.', encoding="utf-8")
    environment = {
        **os.environ,
        "ERL_INETRC": str(names),
        "XMPP_SQL_SERVER": server,
        "XMPP_SQL_OPTIONS": options,
        "XMPP_SQL_CA_FILE": str(authority),
        "XMPP_SQL_PORT": str(port),
    }
    command = ["-noinput", "-pa", str(modules), "-s", "tlim_sql_tls", "open", "-eval", 'io:format("open~n")']
    process = await asyncio.create_subprocess_exec("erl", *command, env=environment, stdout=asyncio.subprocess.PIPE)
    try:
        assert process.stdout is not None
        assert await process.stdout.readline() == b"open\n"
        yield port
    finally:
        process.kill()
        await process.wait()


async def heard(port: int, words: bytes) -> bytes:
    """Say something; return what comes back, which is nothing if the way is closed."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(words)
    answer = bytearray()
    with suppress(ConnectionResetError):
        while len(answer) < len(words) and (more := await reader.read(65536)):
            answer += more
    writer.close()
    return bytes(answer)


@pytest.mark.parametrize(
    ("name", "options", "is_known", "arrives"),
    [
        (IN_THE_CERTIFICATE, "?sslmode=verify-full", True, True),
        ("127.0.0.1", "?sslmode=verify-full", True, True),
        (NOT_IN_IT, "?sslmode=verify-full", True, False),
        (NOT_IN_IT, "?sslmode=verify-ca", True, True),
        (IN_THE_CERTIFICATE, "?sslmode=verify-full", False, False),
        (IN_THE_CERTIFICATE, "?sslmode=verify-ca", False, False),
    ],
)
async def test_only_the_server_that_the_options_ask_for_is_reached(
    modules: Path, tmp_path: Path, name: str, options: str, *, is_known: bool, arrives: bool
) -> None:
    authority, certificate = ensure_certificates(tmp_path / "server", "server.example")
    other, _ = ensure_certificates(tmp_path / "other", "server.example")
    words = os.urandom(1_000_000) if arrives else b"a password"
    async with await asyncio.start_server(echo, "127.0.0.1", 0) as server:
        inside = server.sockets[0].getsockname()[1]
        door = postgres_door("127.0.0.1", inside, certificate)
        async with door as port, node(modules, authority if is_known else other, f"{name}:{port}", options) as way:
            both = await asyncio.gather(heard(way, words), heard(way, words))
    assert set(both) == {words if arrives else b""}


async def test_a_server_without_tls_hears_nothing(modules: Path, tmp_path: Path) -> None:
    authority, _ = ensure_certificates(tmp_path / "server", "server.example")
    asked, ended = list[bytes](), asyncio.Event()

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.read(65536))
        writer.write(b"N")
        asked.append(await reader.read(65536))
        writer.close()
        ended.set()

    async with await asyncio.start_server(refuse, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        async with node(modules, authority, f"localhost:{port}", "?sslmode=verify-full") as way:
            assert await heard(way, b"a password") == b""
            await ended.wait()
    assert asked == [POSTGRES_ASKS, b""]
