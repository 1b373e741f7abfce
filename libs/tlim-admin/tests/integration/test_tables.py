"""What a backup reads of tables, whatever the role, the database or a pooler sets."""

from typing import Any

import asyncpg
import pytest
from tlim_admin.backup import tables

OTHER = """
    SET timezone = 'Asia/Shanghai'; SET datestyle = 'German'; SET bytea_output = 'escape'; SET extra_float_digits = 0;
"""
ROW = """
    CREATE TABLE example AS SELECT now() AS at, '\\xff'::bytea AS bytes, 0.1::float8 + 0.2::float8 AS share"""


async def test_the_digest_of_a_table_does_not_depend_on_how_a_connection_writes_values(data: Any) -> None:
    await data.sessions.execute(ROW)
    before = await tables.content(data.sessions)
    await data.sessions.execute(OTHER)

    assert await tables.content(data.sessions) == before
    assert await data.sessions.fetchval("SHOW datestyle") == "German, DMY", "for the digest only"


async def test_a_pooler_is_sent_no_parameters_that_it_may_refuse(data: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    connect, given = asyncpg.connect, []

    async def recorded(*arguments: Any, **options: Any) -> Any:
        given.append(options)
        return await connect(*arguments, **options)

    monkeypatch.setattr(asyncpg, "connect", recorded)
    async with tables.snapshot(data.logins["session_api"]) as (connection, _):
        assert await tables.content(connection)

    assert [one.get("server_settings") for one in given] == [None]
