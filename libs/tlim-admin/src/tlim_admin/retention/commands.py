"""The commands `retention` and `partitions`."""

import asyncio
import json
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, NamedTuple

import typer
from tlim_runtime.settings import load_settings

from tlim_admin.backup.commands import IN_CONTAINERS, Secrets, logins
from tlim_admin.backup.manifest import BackupError
from tlim_admin.backup.tables import OwnerLogin, connected
from tlim_admin.failures import one_line
from tlim_admin.printed import AsJson, say
from tlim_admin.progress import Steps, steps
from tlim_admin.retention.files import forget_removed, remove_files
from tlim_admin.retention.log_tables import Description, Log, UntouchedLog, recalls_before
from tlim_admin.retention.messages import remove_messages, remove_recalls
from tlim_admin.settings import PostgresSettings

DAY_MS = 86_400_000


class Kept(NamedTuple):
    """The policy: days that messages with their files are kept, and the audit of recalls; None: for ever."""

    messages: int
    recalls: int | None


class Retained(NamedTuple):
    """What was removed, or in a rehearsal would be: `before` is epoch ms; `bytes` are those that no other file has."""

    before: int
    messages: int
    partitions: int
    recalls: int
    files: int
    bytes: int
    dry_run: bool


def retention_command(
    days: Annotated[int, typer.Argument(min=1, help="messages and files are kept for so many days")],
    recalls: Annotated[
        int | None, typer.Option(min=1, help="days of the audit of recalls; without it: for ever")
    ] = None,
    rehearsal: Annotated[bool, typer.Option("--dry-run", help="say what would go, and change nothing")] = False,
    secrets: Secrets = IN_CONTAINERS,
    as_json: AsJson = False,
) -> None:
    """Remove messages that are older, with all that belongs to them, and files that no message carries any more."""
    settings = load_settings(PostgresSettings)
    with one_line(), steps() as shown:
        if recalls is not None and recalls < days:
            raise BackupError("the audit of recalls has to be kept at least as long as messages")
        work = retain(Kept(days, recalls), logins(settings, secrets), shown, rehearsal=rehearsal)
        done = asyncio.run(work)
    verb = "would go" if rehearsal else "removed"
    log = f"before {_date(done.before)}: {done.messages:,} messages {verb}, {done.partitions} partitions as a whole"
    files = f"{done.files:,} files with {done.bytes:,} bytes {verb}, {done.recalls:,} entries of recalls"
    say(done._asdict(), f"{log}\n{files}", as_json=as_json)


async def retain(kept: Kept, owners: Mapping[str, OwnerLogin], shown: Steps, *, rehearsal: bool) -> Retained:
    """Apply the policy. Raises BackupError. A run that was broken off is finished by the next."""
    now = time.time_ns() // 1_000_000
    cutoff = now - kept.messages * DAY_MS
    async with connected(owners["message_store"]) as store, connected(owners["file_api"]) as files:
        log = UntouchedLog(store) if rehearsal else Log(store)
        if not await log.take_turn():
            raise BackupError("another run of retention is at work")
        with shown.bar("removing messages") as bar:
            removed = await remove_messages(log, cutoff, bar.at)
        recalls = 0 if kept.recalls is None else now - kept.recalls * DAY_MS
        with shown.step("removing recalls"):
            entries = (
                await recalls_before(store, recalls) if rehearsal else (await remove_recalls(log, recalls)).recalls
            )
        with shown.bar("removing files") as bar:
            gone = await remove_files(files, store, cutoff, removed.last, bar.at, rehearsal=rehearsal)
        if not rehearsal:
            with shown.step("forgetting removed files"):
                await forget_removed(files, store, cutoff, removed.last)
    return Retained(cutoff, removed.rows, removed.partitions, entries, gone.files, gone.bytes, rehearsal)


def partitions_command(
    ahead: Annotated[int, typer.Option(min=0, help="add so many first")] = 0,
    secrets: Secrets = IN_CONTAINERS,
    as_json: AsJson = False,
) -> None:
    """List the partitions of the log of messages, with rows, sizes and times."""
    settings = load_settings(PostgresSettings)
    with one_line():
        found = asyncio.run(describe(logins(settings, secrets)["message_store"], ahead))
    if as_json:
        typer.echo(json.dumps([{**one._asdict(), "partition": one.partition._asdict()} for one in found]))
        return
    typer.echo(f"{'partition':<24}{'from seq':>16}{'to seq':>16}{'rows, about':>16}{'MB':>10}  time")
    for one in found:
        typer.echo(_line(one))


async def describe(owner: OwnerLogin, ahead: int) -> list[Description]:
    """Add so many partitions, and return what is in each. Raises BackupError."""
    async with connected(owner) as connection:
        log = Log(connection)
        if ahead:
            await log.add_partitions(ahead)
        return [await log.describe(partition) for partition in await log.partitions()]


def _line(one: Description) -> str:
    name, first, bound = one.partition
    span = "empty" if one.oldest is None or one.newest is None else f"{_date(one.oldest)} to {_date(one.newest)}"
    return f"{name:<24}{first:>16,}{bound - 1:>16,}{one.rows:>16,}{one.bytes / 1e6:>10,.1f}  {span}"


def _date(milliseconds: int) -> str:
    return datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat(sep=" ", timespec="minutes")
