"""`python -m file_api.maintain`: what an operator does now and then, beside the running service."""

import argparse
import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict

from tlim_runtime.database import Database
from tlim_runtime.outages import Unavailable
from tlim_runtime.settings import load_settings

from file_api.keep.orphans import Orphans, Report
from file_api.keep.storage import Storage, open_storage
from file_api.repository import Transaction, transactions
from file_api.settings import Settings


async def reconcile(settings: Settings, *, remove: bool) -> Report:
    """Compare rows and objects; with `remove`, have the service remove what belongs to nobody. Raises Unavailable."""
    async with _opened(settings) as (transaction, storage):
        return await Orphans(transaction, storage, settings.unsent_expiry).reconcile(remove=remove)


async def release_quarantine(settings: Settings) -> int:
    """Release all blobs that wait for a scanner which was given up; returns how many."""
    async with _opened(settings) as (transaction, _), transaction() as tables:
        return await tables.scans.release_all()


@asynccontextmanager
async def _opened(settings: Settings) -> AsyncIterator[tuple[Transaction, Storage]]:
    database = Database(settings.database_url.get_secret_value(), pool_size=2)
    try:
        async with open_storage(
            endpoint_url=settings.s3_endpoint_url,
            bucket=settings.s3_bucket,
            region=settings.s3_region,
            access_key=settings.s3_access_key.get_secret_value(),
            secret_key=settings.s3_secret_key.get_secret_value(),
        ) as storage:
            yield transactions(database), storage
    finally:
        await database.close()


def main(arguments: list[str] | None = None) -> int:
    """Do what the command line says, with the environment of the service; the outcome is JSON on stdout."""
    parser = argparse.ArgumentParser(prog="python -m file_api.maintain", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    compare = commands.add_parser("reconcile", help="compare the database with S3 and report what does not match")
    compare.add_argument(
        "--remove",
        action="store_true",
        help="remove blobs without files and objects without rows; NOT after restoring an older backup of the database:"
        " what came later has no rows then",
    )
    commands.add_parser("release-quarantine", help="let files be downloaded that wait for a scanner that was given up")
    chosen = parser.parse_args(arguments)
    settings = load_settings(Settings)
    try:
        if chosen.command == "reconcile":
            outcome = asdict(asyncio.run(reconcile(settings, remove=chosen.remove)))
        else:
            outcome = {"released": asyncio.run(release_quarantine(settings))}
    except Unavailable as error:
        sys.stderr.write(f"{error}\n")
        return 1
    sys.stdout.write(json.dumps(outcome, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
