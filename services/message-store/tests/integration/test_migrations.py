"""The migrations make exactly the tables that the models describe."""

from collections.abc import Callable

from tlim_runtime.migrations import check, upgrade


def test_a_migrated_database_is_what_the_models_describe(make_empty_database: Callable[[str], str]) -> None:
    url = make_empty_database("message_store")
    upgrade("message_store", url)
    check("message_store", url)
