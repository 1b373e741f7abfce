"""PostgreSQL's next major version: a backup taken from 16 is restored into 18, and every row is there."""

from pathlib import Path
from typing import Any

import pytest
from tlim_admin.backup.objects import opened
from tlim_admin.backup.restore import restore
from tlim_admin.backup.tables import OwnerLogin, connected
from tlim_admin.backup.take import take
from tlim_admin.backup.verify import against
from tlim_admin.databases import DATABASE_SERVICES, owner_of
from tlim_admin.postgres_programs import program_in_wheel
from tlim_admin.progress import steps
from tlim_admin.settings import S3Settings
from tlim_devstack import postgres, servers
from tlim_runtime.migrations import upgrade

OLD_MAJOR = 16
ROWS = {
    "session_api": "INSERT INTO users VALUES ('alice', 'Älice', true, 1, 1);"
    "INSERT INTO audit (at, actor, action, detail, request_id) VALUES (1, 'root', 'x', '{\"a\": [1, 2.50]}', 'r')",
    "file_api": "INSERT INTO blobs (blob_id, sha256, size, stored_at, scan) VALUES ('b', 'x', 1, now(), 'infected')",
    "message_store": """
        INSERT INTO messages (seq, conversation_id, sender, recipient, audience, msg_id, msg_type, is_chat, version,
                              body, msg_time, location, stored_at)
            SELECT n, 'c', 'alice', 'bob', 1, n, 'MTT-000', true, '', '[{"text": "\\u0000 你好"}]', '', '', n
            FROM generate_series(1, 500) AS n;
        INSERT INTO search_documents SELECT n, ARRAY[n, -1] FROM generate_series(1, 500) AS n;
        SELECT setval('message_seq', 500)""",
}


def program_of_old_major(name: str) -> Path:
    found = program_in_wheel(name)
    if found is None:
        pytest.skip("PostgreSQL is not installed from its wheel")
    return found.parents[2] / "pginstall" / "bin" / name


def owners(server: servers.PostgresServer) -> dict[str, OwnerLogin]:
    """Make an empty database for each service, and return the logins of their owners."""
    logins = {}
    for service in DATABASE_SERVICES:
        database, role = f"{service}_major", owner_of(service)
        postgres.create_database(server.admin, database, service)
        login = server.login(role, database)
        logins[service] = OwnerLogin(service, login.url().replace("+asyncpg", ""), login.password)
    return logins


async def versions(logins: dict[str, OwnerLogin]) -> set[int]:
    found = set()
    for login in logins.values():
        async with connected(login) as connection:
            found.add(connection.get_server_version().major)
    return found


async def test_a_backup_of_the_old_major_is_restored_into_the_new_one(
    postgres_server: servers.PostgresServer,
    in_containers: bool,
    s3_settings: S3Settings,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    if in_containers:
        pytest.skip("the old major comes from the wheel")
    with monkeypatch.context() as old_programs:
        old_programs.setattr(postgres, "postgres_program", program_of_old_major)
        old_server: Any = servers.running_postgres(tmp_path / "old")
        with old_server as server, opened(s3_settings) as bucket, steps() as shown:
            before = owners(server)
            for service, rows in ROWS.items():
                upgrade(service, before[service].url.replace("postgresql:", "postgresql+asyncpg:"))
                postgres.run_sql(server.login(owner_of(service), f"{service}_major"), rows)
            assert await versions(before) == {OLD_MAJOR}
            await take(tmp_path / "backup", before, bucket, None, shown)

    after = owners(postgres_server)
    with opened(s3_settings) as bucket, steps() as shown:
        await restore(tmp_path / "backup", after, bucket, None, shown)
        verdict = await against(tmp_path / "backup", after, bucket, None, shown)

    assert min(await versions(after)) > OLD_MAJOR
    assert verdict.findings == []
    assert verdict.counts["rows"] > 1_000
    for login in after.values():  # the new server needs nothing more
        upgrade(login.service, login.url.replace("postgresql:", "postgresql+asyncpg:"))
