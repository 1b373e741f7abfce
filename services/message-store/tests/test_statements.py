"""Named parameters become numbered ones; casts and texts are left alone."""

import pytest
from message_store.statements import NamedStatement


class FakeConnection:
    """Notes what it is asked, and has one row."""

    async def fetch(self, sql: str, *values: object) -> list[tuple[str, tuple[object, ...]]]:
        return [(sql, values)]


async def asked(sql: str, **values: object) -> object:
    connection: object = FakeConnection()
    return await NamedStatement(sql).row(connection, **values)  # type: ignore[arg-type]


async def test_a_name_has_the_same_number_wherever_it_stands() -> None:
    sql = "SELECT :user_id, (:user_id), :after - 1"
    assert await asked(sql, after=7, user_id="alice") == ("SELECT $1, ($1), $2 - 1", ("alice", 7))


async def test_neither_a_cast_nor_a_text_is_a_name() -> None:
    sql = "SELECT body::text, 'u:' FROM messages"
    assert await asked(sql, text="not asked for") == (sql, ())


async def test_a_parameter_without_a_value_is_a_mistake() -> None:
    with pytest.raises(KeyError):
        await asked("SELECT :user_id")
