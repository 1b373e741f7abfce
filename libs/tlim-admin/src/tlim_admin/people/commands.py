"""The commands `user export` and `user erase`."""

import asyncio
from pathlib import Path
from typing import Annotated

import typer
from tlim_protocol.errors import TlimError
from tlim_protocol.identity import normalize_user_id
from tlim_runtime.settings import load_settings

from tlim_admin.backup import objects
from tlim_admin.backup.accounts import Accounts
from tlim_admin.backup.commands import IN_CONTAINERS, Secrets, logins
from tlim_admin.backup.manifest import BackupError
from tlim_admin.failures import one_line
from tlim_admin.people.erase import erase, plan
from tlim_admin.people.export import Stores, export
from tlim_admin.printed import AsJson, say
from tlim_admin.progress import steps
from tlim_admin.settings import BackupSettings, EraseSettings

app = typer.Typer(no_args_is_help=True, help="Export what is kept of a person, or erase it.")
UserId = Annotated[str, typer.Argument(metavar="USER", help="the person's user id")]


@app.command("export")
def export_command(
    user: UserId,
    target: Annotated[Path, typer.Argument(help="a new folder, or a new file that ends in .zip")],
    secrets: Secrets = IN_CONTAINERS,
    as_json: AsJson = False,
) -> None:
    """Write all that is kept of a person: profile, sessions, messages, receipts, files with their bytes, contacts."""
    settings = load_settings(BackupSettings)
    with one_line(), objects.opened(settings) as bucket, steps() as shown:
        stores = Stores(logins(settings, secrets), bucket, Accounts.of(settings))
        made = asyncio.run(export(_user_id(user), target, stores, shown))
    if as_json:
        typer.echo(made.model_dump_json(exclude={"parts"}))
        return
    typer.echo(f"written: {target}")
    typer.echo(", ".join(f"{count:,} {what}" for what, count in made.counts.items()))
    for file_id in made.lost:
        typer.echo(f"S3 has lost the bytes of the file {file_id}")


@app.command("erase")
def erase_command(
    user: UserId,
    yes: Annotated[bool, typer.Option("--yes", help="really do it: nothing brings it back but a backup")] = False,
    secrets: Secrets = IN_CONTAINERS,
    as_json: AsJson = False,
) -> None:
    """Erase a person: texts and files that they wrote, name, account. Histories keep their order, with empty places."""
    settings = load_settings(EraseSettings)
    with one_line(), steps() as shown:
        user_id = _user_id(user)
        owners = logins(settings, secrets)
        if not yes:
            there = asyncio.run(plan(user_id, owners, shown))
            what = f"{there.messages:,} messages and {there.files:,} files of {user_id}"
            raise BackupError(f"{what} would be erased, and the account closed for ever: add --yes")
        done = asyncio.run(erase(user_id, owners, Accounts.of(settings), shown))
    said = [f"erased: {user_id}, {done.messages:,} messages, {done.files:,} files, {done.bytes:,} bytes"]
    if done.kept_files:
        said.append(f"{done.kept_files:,} files stay, as others have sent them on")
    if settings.xmpp_admin_url is None:
        said.append("accounts are kept elsewhere: remove this one there")
    say({"user_id": user_id, **done._asdict()}, "\n".join(said), as_json=as_json)


def _user_id(raw: str) -> str:
    try:
        return normalize_user_id(raw)
    except TlimError as error:
        raise BackupError(f"{raw!r} is no user id: {error}") from error
