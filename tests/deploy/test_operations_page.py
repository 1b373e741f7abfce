"""docs/operations.md: what a backup leaves out, and what a pooler has to know, are as the code has them."""

import asyncio
import re
from pathlib import Path
from typing import Any

import asyncpg
import pytest
import yaml
from message_store.leadership import Leadership
from tlim_runtime import migrations
from tlim_runtime.database import Database

from tests.deploy.images import ROOT

PAGE = (ROOT / "docs/operations.md").read_text(encoding="utf-8")
SCHEMA = Path("/usr/share/ejabberd/sql/pg.sql")
KEEPING = {
    "mod_last": {"last"},
    "mod_offline": {"spool"},
    "mod_privacy": {"privacy_default_list", "privacy_list", "privacy_list_data"},
    "mod_private": {"private_storage"},
    "mod_roster": {"rosterusers", "rostergroups", "roster_version"},
    "mod_vcard": {"vcard", "vcard_search"},
}
"""The modules of ejabberd.yml that keep something, with their tables."""


def dumped() -> set[str]:
    (command,) = re.findall(r"pg_dump --dbname=\"\$ejabberd\".*?\)$", PAGE, re.MULTILINE | re.DOTALL)
    return set(re.findall(r"--table=(\w+)", command))


def test_the_page_says_that_a_cluster_of_ejabberd_keeps_rosters_in_postgresql() -> None:
    cluster = yaml.safe_load((ROOT / "deploy/ejabberd/cluster.yml").read_text(encoding="utf-8"))
    assert cluster["default_db"] == "sql"
    (left_out,) = re.findall(r"^Not in it: .*?\n\n", PAGE, re.MULTILINE | re.DOTALL)
    assert f"database\n`{cluster['sql_database']}` in PostgreSQL" in left_out


def test_the_page_dumps_every_table_of_a_module_that_keeps_something() -> None:
    modules = re.findall(r"^  (mod_\w+):", (ROOT / "deploy/ejabberd/ejabberd.yml").read_text("utf-8"), re.MULTILINE)
    assert modules
    assert dumped() == {table for name in modules for table in KEEPING.get(name, ())}


def test_what_the_page_dumps_it_also_puts_back_before_there_are_accounts() -> None:
    (file,) = re.findall(r"pg_dump --dbname=\"\$ejabberd\".* --file=(\S+)", PAGE)
    put_back = re.findall(rf"psql .*--dbname=\"\$ejabberd\" --file={file}\n.*?\"restore\", \"/backup", PAGE, re.DOTALL)
    assert len(put_back) == 1


def test_a_command_of_compose_runs_the_image_that_env_names() -> None:
    commands = re.findall(r"(.*)\ndocker run .*\$\{TLIM_IMAGES:-localhost/tlim\}", PAGE)
    assert commands
    assert all(before.startswith(". scripts/settings") for before in commands)


@pytest.mark.skipif(not SCHEMA.exists(), reason="ejabberd is not installed")
def test_the_tables_that_the_page_dumps_are_in_the_schema_that_the_job_loads() -> None:
    assert f'"{SCHEMA}"' in (ROOT / "deploy/ejabberd/tlim_tables.erl").read_text(encoding="utf-8")
    assert dumped() <= set(re.findall(r"^CREATE TABLE (\w+) \(", SCHEMA.read_text(encoding="utf-8"), re.MULTILINE))


class Told(BaseException):
    """Ends an attempt to connect; nothing tries again after it."""


async def test_a_pooler_that_ignores_what_the_page_names_lets_services_and_migrations_in(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sent: set[str] = set()

    async def connect(*_: object, server_settings: dict[str, str], **__: object) -> Any:
        sent.update(server_settings)
        raise Told

    monkeypatch.setattr(asyncpg, "connect", connect)
    url = "postgresql+asyncpg://role:password@127.0.0.1:1/name"
    with pytest.raises(Told):
        await Database(url).ping()
    with pytest.raises(Told):
        await Leadership(url, lambda _: pytest.fail("works"), 0.1, lambda _: None).run()
    with pytest.raises(Told):
        await asyncio.to_thread(migrations.upgrade, "session_api", url)

    (ignored,) = re.findall(r"^ignore_startup_parameters = (\S+)$", PAGE, re.MULTILINE)
    assert set(ignored.split(",")) == sent - {"timezone", "application_name"}
