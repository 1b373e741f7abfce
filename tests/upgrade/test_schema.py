"""Migrations fit the release before: its code works on the new schema, so old and new processes run side by side."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import asyncpg
import pytest
from alembic.script import ScriptDirectory
from tlim_runtime.migrations import upgrade

from tests.upgrade.release import RELEASE_BEFORE, ROOT, NoHistoryError, files

SERVICES = ("session_api", "file_api", "message_store")

COLUMNS = """
    SELECT c.table_name, c.column_name, data_type, is_nullable = 'YES' AS nullable,
           column_default IS NOT NULL OR is_identity = 'YES' OR is_generated = 'ALWAYS' AS filled
    FROM information_schema.columns AS c JOIN information_schema.tables USING (table_schema, table_name)
    WHERE table_schema = 'public' AND table_type = 'BASE TABLE'"""

RULES = """
    SELECT conrelid::regclass::text AS table_name, pg_get_constraintdef(oid) AS rule FROM pg_constraint
    WHERE connamespace = 'public'::regnamespace AND contype IN ('c', 'u', 'p', 'f', 'x') AND conparentid = 0
    UNION SELECT indrelid::regclass::text, regexp_replace(pg_get_indexdef(indexrelid), ' INDEX \\S+ ', ' INDEX ')
    FROM pg_index JOIN pg_class ON oid = indrelid WHERE indisunique AND relnamespace = 'public'::regnamespace"""


class Column(NamedTuple):
    """A column as statements meet it; `filled`: it has a value if a statement gives none."""

    data_type: str
    nullable: bool
    filled: bool


class Schema(NamedTuple):
    """Tables with their columns, and what rows have to keep to: table and rule."""

    tables: dict[str, dict[str, Column]]
    rules: set[tuple[str, str]]


async def schema_of(url: str) -> Schema:
    connection = await asyncpg.connect(url.replace("+asyncpg", ""))
    try:
        tables: dict[str, dict[str, Column]] = {}
        for table, column, *rest in await connection.fetch(COLUMNS):
            tables.setdefault(table, {})[column] = Column(*rest)
        return Schema(tables, {(row["table_name"], row["rule"]) for row in await connection.fetch(RULES)})
    finally:
        await connection.close()


def breaks(old: Schema, new: Schema) -> list[str]:
    """Return what statements of the release before would stumble over."""
    found = []
    for table, columns in old.tables.items():
        now = new.tables.get(table, {})
        for name, column in columns.items():
            if name not in now:
                found.append(f"{table}.{name} is gone")
            elif now[name].data_type != column.data_type:
                found.append(f"{table}.{name} has another type")
            elif column.nullable and not now[name].nullable:
                found.append(f"{table}.{name} must have a value")
            elif column.filled and not now[name].filled:
                found.append(f"{table}.{name} has no default any more")
        new_ones = {name: now[name] for name in now.keys() - columns.keys()}
        needed = [name for name, column in new_ones.items() if not column.nullable and not column.filled]
        found += [f"{table}.{name} is new, and must be given" for name in needed]
    found += [f"{table} has to keep to {rule}" for table, rule in new.rules - old.rules if table in old.tables]
    return sorted(found)


def newest_migration(service: str, release: list[str]) -> str:
    """Return the newest of our migrations that is in a release with these files."""
    folder = ROOT / "services" / service.replace("_", "-") / "src" / service / "migrations"
    ours = ScriptDirectory(str(folder)).walk_revisions()  # the newest comes first
    return next(one.revision for one in ours if str(Path(one.path).relative_to(ROOT)) in release)


@pytest.mark.parametrize("service", SERVICES)
async def test_the_release_before_can_work_on_the_new_schema(
    make_empty_database: Callable[[str], str], service: str
) -> None:
    try:
        release = files(RELEASE_BEFORE)
    except NoHistoryError as error:
        pytest.skip(str(error))
    url = make_empty_database(service)
    upgrade(service, url, newest_migration(service, release))
    old = await schema_of(url)
    upgrade(service, url)
    new = await schema_of(url)

    assert old.tables
    assert breaks(old, new) == []


def test_what_would_break_the_release_before_is_found() -> None:
    plain = Column("text", nullable=True, filled=False)
    old = Schema({"users": {"name": plain, "kind": plain, "at": plain._replace(filled=True), "old": plain}}, set())
    new_columns: dict[str, Any] = {
        "name": plain._replace(nullable=False), "kind": plain._replace(data_type="bigint"), "at": plain,
        "needed": plain._replace(nullable=False), "given": plain._replace(nullable=False, filled=True),
    }  # fmt: skip
    new = Schema({"users": new_columns, "more": {"x": plain}}, {("users", "UNIQUE (name)"), ("more", "UNIQUE (x)")})

    assert breaks(old, new) == [
        "users has to keep to UNIQUE (name)",
        "users.at has no default any more",
        "users.kind has another type",
        "users.name must have a value",
        "users.needed is new, and must be given",
        "users.old is gone",
    ]
