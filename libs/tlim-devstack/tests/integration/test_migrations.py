"""The migrations of every service build exactly the tables that its models describe, one or all in one process."""

import asyncio
import json
import subprocess
import sys
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


def _migrated(urls: dict[str, str]) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tlim_devstack.migrations"]
    return subprocess.run(command, input=json.dumps(urls), capture_output=True, text=True, check=False)


async def test_one_process_migrates_all_databases(make_empty_database: MakeDatabase) -> None:
    urls = {package: make_empty_database(package) for package in DATABASE_SERVICES}

    done = await asyncio.to_thread(_migrated, urls)

    assert (done.returncode, done.stderr) == (0, "")
    for package, url in urls.items():
        await asyncio.to_thread(check, package, url)


async def test_of_a_migration_that_fails_the_name_comes_last(make_empty_database: MakeDatabase) -> None:
    first, second, third = DATABASE_SERVICES
    nobody = "postgresql+asyncpg://nobody:x@127.0.0.1:1/nothing"

    done = await asyncio.to_thread(_migrated, {first: make_empty_database(first), second: nobody, third: nobody})

    assert done.returncode != 0
    assert done.stdout.split() == [first, second]
