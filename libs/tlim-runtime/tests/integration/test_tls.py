"""NATS, PostgreSQL and an issuer of tokens over TLS: the variables for their authorities, and no other authority."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from pydantic import SecretStr
from sqlalchemy import text
from tlim_devstack import nats
from tlim_devstack.certificates import ensure_certificates
from tlim_devstack.processes import ServerProcess, dies_with_parent
from tlim_devstack.servers import PostgresServer, nats_passwords
from tlim_devstack.tls_door import postgres_door, tls_of
from tlim_devstack.waiting import free_port
from tlim_runtime.broker import Broker
from tlim_runtime.database import Database
from tlim_runtime.issuers import http_jwks
from tlim_runtime.outages import DatabaseUnavailable
from tlim_runtime.settings import DatabaseSettings


@pytest.fixture
def authority(tmp_path: Path) -> tuple[Path, Path]:
    """The authority's certificate, and a certificate with its key for 127.0.0.1."""
    return ensure_certificates(tmp_path / "certificates", "server.example")


@pytest.fixture
def nats_with_tls(authority: tuple[Path, Path], tmp_path: Path) -> Iterator[tuple[int, str]]:
    """A NATS server that speaks TLS only: its port, and the password of `tests`."""
    passwords, port = nats_passwords(), free_port()
    config = nats.write_config(tmp_path / "nats", passwords)
    config.write_text(f'{config.read_text()}\ntls {{ cert_file: "{authority[1]}", key_file: "{authority[1]}" }}\n')
    process = ServerProcess(
        "NATS", dies_with_parent(nats.command(config, tmp_path / "data", port)), tmp_path / "nats.log"
    )
    process.wait_ready(lambda: nats.greets(port))
    yield port, passwords[nats.TEST_USER]
    process.stop()


async def test_nats_is_reached_over_tls(
    nats_with_tls: tuple[int, str], authority: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    port, password = nats_with_tls
    monkeypatch.setenv("SSL_CERT_FILE", str(authority[0]))
    broker = await Broker.connect(f"tls://127.0.0.1:{port}", nats.TEST_USER, password, name="test")
    await broker.ping()
    await broker.close()


async def answers(url: str) -> bool:
    database = Database(url)
    try:
        async with database.session() as session:
            return bool((await session.execute(text("SELECT true"))).scalar_one())
    finally:
        await database.close()


async def test_postgresql_is_reached_over_tls_and_only_with_its_own_authority(
    postgres_server: PostgresServer, authority: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    admin = postgres_server.admin
    async with postgres_door(admin.host, admin.port, authority[1]) as port:
        settings = DatabaseSettings(database_url=SecretStr(f"{replace(admin, port=port).url()}?sslmode=verify-full"))
        url = settings.database_url.get_secret_value()
        monkeypatch.setenv("PGSSLROOTCERT", str(authority[0]))
        assert await answers(url)
        monkeypatch.setenv("PGSSLROOTCERT", str(ensure_certificates(tmp_path / "others", "server.example")[0]))
        with pytest.raises(DatabaseUnavailable, match="certificate verify failed"):
            await answers(url)


@asynccontextmanager
async def issuer(certificate: Path) -> AsyncIterator[str]:
    """Serve an empty JWK set over HTTPS; the URL."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b'HTTP/1.1 200 OK\r\nContent-Length: 11\r\nConnection: close\r\n\r\n{"keys":[]}')
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0, ssl=tls_of(certificate)) as server:
        yield f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}/keys"


async def test_the_keys_of_an_issuer_are_fetched_over_https_and_only_with_its_own_authority(
    authority: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with issuer(authority[1]) as url:
        monkeypatch.setenv("SSL_CERT_FILE", str(authority[0]))
        assert await http_jwks(url)() == {"keys": []}
        monkeypatch.setenv("SSL_CERT_FILE", str(ensure_certificates(tmp_path / "others", "server.example")[0]))
        with pytest.raises(OSError, match="certificate verify failed"):
            await http_jwks(url)()
