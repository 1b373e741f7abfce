"""The migrations build exactly the tables that the models describe, and go back."""

import asyncpg
from alembic import command
from tlim_devstack.pytest_plugin import MakeDatabase
from tlim_runtime import migrations


def test_the_migrations_make_what_the_models_say(make_empty_database: MakeDatabase) -> None:
    url = make_empty_database("session_api")
    migrations.upgrade("session_api", url)
    migrations.check("session_api", url)


def test_upgrading_again_changes_nothing(make_empty_database: MakeDatabase) -> None:
    url = make_empty_database("session_api")
    migrations.upgrade("session_api", url)
    migrations.upgrade("session_api", url)
    migrations.check("session_api", url)


def test_the_migrations_go_back_to_an_empty_database(make_empty_database: MakeDatabase) -> None:
    url = make_empty_database("session_api")
    migrations.upgrade("session_api", url)
    command.downgrade(migrations._config("session_api", url), "base")
    migrations.upgrade("session_api", url)
    migrations.check("session_api", url)


async def test_sessions_from_before_the_log_enter_it_with_their_newest_version(
    make_empty_database: MakeDatabase,
) -> None:
    url = make_empty_database("session_api")
    command.upgrade(migrations._config("session_api", url), "20261123_users_sessions_outbox")
    connection = await asyncpg.connect(url.replace("+asyncpg", ""))
    try:
        await connection.execute(
            """
            INSERT INTO users VALUES ('alice', 'Alice', true, 1, 1);
            INSERT INTO sessions VALUES
                ('deleted', 'x', 1, 'alice', 3, 'alice', 1, 2, 30),
                ('changed', 'y', 1, 'alice', 2, 'bob', 5, 20, NULL),
                ('new', 'z', 1, 'alice', 1, 'alice', 10, NULL, NULL)
            """
        )
        migrations.upgrade("session_api", url)
        rows = await connection.fetch("SELECT change, session_id, version, actor, at, deleted FROM session_changes")
    finally:
        await connection.close()
    assert [tuple(row) for row in rows] == [
        (1, "new", 1, "alice", 10, False),
        (2, "changed", 2, "bob", 20, False),
        (3, "deleted", 3, "alice", 30, True),
    ]
