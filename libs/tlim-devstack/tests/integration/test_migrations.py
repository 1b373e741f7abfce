"""The migrations of every service build exactly the tables that its models describe."""

import asyncio
from collections.abc import Callable

import pytest
from tlim_admin.databases import DATABASE_SERVICES
from tlim_devstack.pytest_plugin import MakeDatabase
from tlim_runtime.migrations import check


@pytest.mark.parametrize("package", DATABASE_SERVICES)
async def test_migrations_and_models_agree(
    package: str, make_database: MakeDatabase, owner_url: Callable[[str, str], str]
) -> None:
    await asyncio.to_thread(check, package, owner_url(package, make_database(package)))
