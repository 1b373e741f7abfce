"""The migrations build exactly the tables that the models describe, and go back."""

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
