"""What the tables keep: membership periods, and one consistent picture while others write."""

from collections.abc import Callable

import asyncpg
import httpx
from fastapi import FastAPI
from session_api.repository import SessionRepository

AsUser = Callable[..., httpx.AsyncClient]


async def test_a_session_and_its_people_are_read_at_one_version(app: FastAPI, as_user: AsUser, lunch: str) -> None:
    async with app.state.database.session() as reading:
        sessions = SessionRepository(reading)
        session = await sessions.find(lunch)
        assert session is not None
        edit = {"add": ["dave"], "remove": ["bob"]}
        assert (await as_user("alice").patch(f"/v1/sessions/{lunch}", json=edit)).status_code == 200
        assert (session.version, await sessions.subscribers(session)) == (1, ["alice", "bob", "carol"])
    async with app.state.database.session() as reading:
        sessions = SessionRepository(reading)
        session = await sessions.find(lunch)
        assert session is not None
        assert (session.version, await sessions.subscribers(session)) == (2, ["alice", "carol", "dave"])


async def test_who_left_and_came_back_has_two_periods(as_user: AsUser, lunch: str, database_url: str) -> None:
    alice, place = as_user("alice"), f"/v1/sessions/{lunch}"
    for edit in ({"remove": ["bob"]}, {"session_name": "x"}, {"add": ["bob"]}):
        assert (await alice.patch(place, json=edit)).status_code == 200
    rows = await _rows(
        database_url,
        "SELECT added_version, removed_version, joined_at <= coalesce(left_at, joined_at) AS in_order"
        " FROM subscribers WHERE user_id = 'bob' ORDER BY added_version",
    )
    assert [tuple(row) for row in rows] == [(1, 2, True), (4, None, True)]


async def test_a_deleted_session_stays_as_a_record_marked_as_the_specification_says(
    as_user: AsUser, lunch: str, database_url: str
) -> None:
    question = "SELECT session_valid, deleted_at IS NOT NULL FROM sessions"
    assert [tuple(row) for row in await _rows(database_url, question)] == [(0, False)]
    await as_user("alice").delete(f"/v1/sessions/{lunch}")
    assert [tuple(row) for row in await _rows(database_url, question)] == [(1, True)]
    assert len(await _rows(database_url, "SELECT FROM subscribers WHERE left_at IS NULL")) == 3


async def _rows(url: str, question: str) -> list[asyncpg.Record]:
    connection = await asyncpg.connect(url.replace("+asyncpg", ""))
    try:
        rows: list[asyncpg.Record] = await connection.fetch(question)
        return rows
    finally:
        await connection.close()
