"""Maintenance from a terminal or a cron job: `python -m message_store.maintain partitions|retention`.

TLIM_DATABASE_URL is the URL that the migrations use, with the role that owns the tables. The store may run meanwhile.
"""

import argparse
import asyncio
import sys
import time
from datetime import UTC, datetime, timedelta

from tlim_runtime.settings import load_settings

from message_store.maintain.repository import FAILURES, Description, Maintenance, connect
from message_store.maintain.retention import remove_messages, remove_recalls
from message_store.maintain.settings import MaintenanceSettings


async def show_partitions(store: Maintenance, settings: MaintenanceSettings, ahead: int) -> None:
    """Print the partitions of the log; add some first when `ahead` is not 0."""
    if ahead:
        await store.add_partitions(settings.partition_span, ahead)
    _say(f"{'partition':<24}{'from seq':>16}{'to seq':>16}{'rows, about':>16}{'MB':>10}  time")
    for partition in await store.partitions():
        _say(_line(await store.describe(partition)))


async def apply_retention(store: Maintenance, settings: MaintenanceSettings) -> None:
    """Remove what the policy does not keep, and print what was removed."""
    if settings.retain_messages is None:
        _say("messages: kept for ever (TLIM_RETAIN_MESSAGES is not set)")
        return
    cutoff = _before(settings.retain_messages)
    removed = await remove_messages(store, cutoff)
    _say(f"messages before {_date(cutoff)}: {removed.rows:,} removed, {removed.partitions} partitions dropped")
    if settings.retain_recalls is None:
        _say("audit of recalls: kept for ever (TLIM_RETAIN_RECALLS is not set)")
        return
    cutoff = _before(settings.retain_recalls)
    removed = await remove_recalls(store, cutoff)
    _say(f"audit of recalls before {_date(cutoff)}: {removed.recalls:,} removed")


def _before(age: timedelta) -> int:
    return time.time_ns() // 1_000_000 - int(age.total_seconds() * 1000)


def _line(one: Description) -> str:
    name, first, bound = one.partition
    span = "empty" if one.oldest is None or one.newest is None else f"{_date(one.oldest)} to {_date(one.newest)}"
    return f"{name:<24}{first:>16,}{bound - 1:>16,}{one.rows:>16,}{one.bytes / 1e6:>10,.1f}  {span}"


def _date(milliseconds: int) -> str:
    return datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat(sep=" ", timespec="minutes")


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")


async def run(arguments: argparse.Namespace, settings: MaintenanceSettings) -> int:
    """Do what the command line says; return the exit status."""
    connection = await connect(settings.database_url.get_secret_value())
    try:
        store = Maintenance(connection)
        if not await store.take_turn():
            sys.stderr.write("another run of maintenance is at work\n")
            return 1
        if arguments.action == "partitions":
            await show_partitions(store, settings, arguments.ahead)
        else:
            await apply_retention(store, settings)
    finally:
        await connection.close()
    return 0


def main() -> None:
    """Show or add partitions, or apply the policy of retention (TLIM_RETAIN_MESSAGES, TLIM_RETAIN_RECALLS)."""
    parser = argparse.ArgumentParser(prog="python -m message_store.maintain", description=main.__doc__)
    actions = parser.add_subparsers(dest="action", required=True)
    partitions = actions.add_parser("partitions", help="list the partitions of the log")
    partitions.add_argument("--ahead", type=int, default=0, help="add so many first")
    actions.add_parser("retention", help="remove what is older than the policy keeps")
    arguments = parser.parse_args()
    settings = load_settings(MaintenanceSettings)
    try:
        raise SystemExit(asyncio.run(run(arguments, settings)))
    except FAILURES as error:
        sys.stderr.write(f"message-store maintenance: {error}\n")
        raise SystemExit(1) from None


if __name__ == "__main__":
    main()
