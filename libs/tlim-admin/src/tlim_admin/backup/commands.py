"""The commands `backup`, `restore` and `verify`."""

import asyncio
import json
from pathlib import Path
from typing import Annotated

import typer
from tlim_runtime.settings import load_settings

from tlim_admin import secret_files
from tlim_admin.backup import objects, verify
from tlim_admin.backup.accounts import Accounts
from tlim_admin.backup.manifest import Manifest
from tlim_admin.backup.restore import read_whole, restore, restore_accounts
from tlim_admin.backup.tables import OwnerLogin
from tlim_admin.backup.take import note, take
from tlim_admin.databases import DATABASE_SERVICES, owner_of
from tlim_admin.failures import one_line
from tlim_admin.printed import AsJson
from tlim_admin.progress import steps
from tlim_admin.settings import BackupSettings, PostgresSettings

Folder = Annotated[Path, typer.Argument(help="the folder of the backup")]
Secrets = Annotated[Path, typer.Option("--secrets", help="the folder of the secrets")]
IN_CONTAINERS = Path("/run/secrets")


def logins(settings: PostgresSettings, secrets: Path) -> dict[str, OwnerLogin]:
    """Return the login of the owner of each service's tables."""
    passwords = secret_files.role_passwords(secrets)
    roles = {service: owner_of(service) for service in DATABASE_SERVICES}
    return {one: OwnerLogin(one, settings.url_of(role, one), passwords[role]) for one, role in roles.items()}


def backup_command(folder: Folder, secrets: Secrets = IN_CONTAINERS, as_json: AsJson = False) -> None:
    """Write a backup of the running system into a new folder: databases, bytes of files, XMPP accounts."""
    settings = load_settings(BackupSettings)
    with one_line(), objects.opened(settings) as bucket, steps() as shown:
        owners = logins(settings, secrets)
        made = asyncio.run(take(folder, owners, bucket, Accounts.of(settings), shown))
        reason = asyncio.run(note(owners["session_api"], made, shown))
    _tell(made, f"written: {folder}", as_json=as_json)
    if reason:
        typer.echo(f"not entered in the audit: {reason}", err=True)


def restore_command(
    folder: Folder,
    secrets: Secrets = IN_CONTAINERS,
    *,
    accounts: Annotated[
        bool, typer.Option("--accounts", help="the accounts alone, into an XMPP server that has no others")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Put a backup into an empty system, before the migrations and the services of it have run."""
    settings = load_settings(BackupSettings)
    if accounts:
        with one_line(), steps() as shown:
            made = restore_accounts(folder, Accounts.of(settings), shown)
        typer.echo(json.dumps({"accounts": made.accounts}) if as_json else f"restored: {made.accounts:,} accounts")
        return
    with one_line(), objects.opened(settings) as bucket, steps() as shown:
        made = asyncio.run(restore(folder, logins(settings, secrets), bucket, Accounts.of(settings), shown))
    _tell(made, f"restored: {folder}", as_json=as_json)


def verify_command(
    secrets: Secrets = IN_CONTAINERS,
    whole: Annotated[Path | None, typer.Option("--backup", help="only read this backup, to its last byte")] = None,
    against: Annotated[Path | None, typer.Option(help="compare a system just restored with its backup")] = None,
    *,
    read_bytes: Annotated[bool, typer.Option("--bytes", help="read every object, and hash it")] = False,
    accept_lost: Annotated[
        bool,
        typer.Option("--accept-lost", help="enter lost files of messages as removed, so that no run names them again"),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Compare databases, objects and accounts with each other, or with a backup. Exits with 1 if they do not agree."""
    if whole is not None:
        with one_line(), steps() as shown:
            made = read_whole(whole, shown)
        _tell(made, f"whole: {whole}", as_json=as_json)
        return
    settings = load_settings(BackupSettings)
    with one_line(), objects.opened(settings) as bucket, steps() as shown:
        where = (logins(settings, secrets), bucket, Accounts.of(settings), shown)
        work = (
            verify.stores(*where, read_bytes=read_bytes, accept_lost=accept_lost)
            if against is None
            else verify.against(against, *where)
        )
        verdict = asyncio.run(work)
    if as_json:
        typer.echo(json.dumps(verdict._asdict(), ensure_ascii=False))
    else:
        typer.echo(", ".join(f"{count:,} {what}" for what, count in verdict.counts.items()))
        for finding in verdict.findings:
            typer.echo(finding)
        typer.echo(f"{len(verdict.findings)} findings" if verdict.findings else "all of it agrees")
    if verdict.findings:
        raise typer.Exit(1)


def _tell(made: Manifest, what: str, *, as_json: bool) -> None:
    if as_json:
        typer.echo(made.model_dump_json(exclude={"parts"}))
        return
    rows = sum(table.rows for content in made.databases.values() for table in content.values())
    accounts = "accounts are kept elsewhere" if made.accounts is None else f"{made.accounts:,} accounts"
    typer.echo(f"{what}, of {made.made_at:%Y-%m-%d %H:%M:%S} UTC")
    typer.echo(f"{rows:,} rows, {made.objects:,} objects with {made.object_bytes:,} bytes, {accounts}")
    for key in made.lost:
        typer.echo(f"S3 had lost {key} before: a row names it")
