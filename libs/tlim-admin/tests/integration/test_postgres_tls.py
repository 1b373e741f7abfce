"""A PostgreSQL that lets nobody in without TLS is backed up and restored, and only with its own authority."""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import pytest
import pytest_asyncio
from tlim_admin.backup import dumps
from tlim_admin.backup.manifest import BackupError
from tlim_admin.backup.postgres_tls import speaking_tls
from tlim_admin.backup.tables import OwnerLogin, connected, content, snapshot
from tlim_devstack.certificates import ensure_certificates
from tlim_devstack.tls_door import POSTGRES_ASKS, postgres_door

Guarded = Callable[[OwnerLogin, str], OwnerLogin]


@pytest_asyncio.fixture
async def guarded(data: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Guarded]:
    """Returns the login that leads to the same database through a door that speaks TLS only."""
    authority, certificate = ensure_certificates(tmp_path / "certificates", "server.example")
    monkeypatch.setenv("PGSSLROOTCERT", str(authority))
    real = urlsplit(data.logins["file_api"].url)
    async with postgres_door(str(real.hostname), real.port or 5432, certificate) as port:

        def behind(login: OwnerLogin, mode: str) -> OwnerLogin:
            return login._replace(url=f"{login.url.replace(f':{real.port}/', f':{port}/')}?sslmode={mode}")

        yield behind


@pytest.mark.parametrize("mode", ["require", "verify-full"])
async def test_a_database_is_dumped_and_restored_over_tls(
    data: Any, guarded: Guarded, mode: str, tmp_path: Path, make_empty_database: Callable[[str], str]
) -> None:
    await data.files.execute("INSERT INTO removed_files SELECT n::text, now() FROM generate_series(1, 2000) AS n")
    source = guarded(data.logins["file_api"], mode)
    url = make_empty_database("file_api").replace("+asyncpg", "")
    target = OwnerLogin("file_api", url, unquote(urlsplit(url).password or ""))

    async with snapshot(source) as (connection, name):
        await dumps.dump(source, name, tmp_path / "dump")
        expected = await content(connection)
    await dumps.restore(guarded(target, mode), tmp_path / "dump")

    async with connected(target) as connection:
        assert await content(connection) == expected
    assert expected["removed_files"].rows == 2000


async def test_nothing_is_left_of_a_connection_when_a_program_has_ended(guarded: Guarded, data: Any) -> None:
    login = guarded(data.logins["file_api"], "verify-full")
    async with speaking_tls(login.url) as url:
        socket = f"{dict(parse_qsl(urlsplit(url).query))['host']}/.s.PGSQL.5432"
        reader, writer = await asyncio.open_unix_connection(socket)
        writer.write(POSTGRES_ASKS)
        assert await reader.read(1) == b"N"  # PostgreSQL itself has answered
    assert not [one for one in asyncio.all_tasks() if "speaking_tls" in repr(one)]
    writer.close()


async def test_a_server_with_a_strange_certificate_gets_nothing(
    data: Any, guarded: Guarded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    login = guarded(data.logins["file_api"], "verify-full")
    await dumps.probe(login)
    monkeypatch.setenv("PGSSLROOTCERT", str(ensure_certificates(tmp_path / "others", "server.example")[0]))
    with pytest.raises(BackupError, match="file_api: pg_dump: error: connection to server") as refused:
        await dumps.probe(login)
    assert "\n" not in str(refused.value)


async def test_without_a_demand_for_tls_the_program_goes_to_the_server_itself() -> None:
    async with speaking_tls("postgresql://role@127.0.0.1:5432/files?sslmode=prefer") as url:
        assert url == "postgresql://role@127.0.0.1:5432/files?sslmode=prefer"
