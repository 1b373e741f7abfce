"""`tlim users …`: the users directory, for administrators."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from tlim_client.cli.account import Gateway
from tlim_client.cli.context import AsJson, Doors, doors, run
from tlim_client.cli.output import json_line, printable
from tlim_client.http import Json

commands = typer.Typer(no_args_is_help=True, help="Administer the users directory.")


class Format(StrEnum):
    """The media types that a file of users may have."""

    CSV = "csv"
    JSON = "json"


_MEDIA_TYPES = {Format.CSV: "text/csv", Format.JSON: "application/json"}

AdminToken = Annotated[
    str,
    typer.Option(
        envvar="TLIM_ADMIN_TOKEN",
        metavar="TOKEN",
        help="A token with scope admin. Better in the environment: other users of a machine see what is typed.",
    ),
]


@commands.callback()
def users() -> None:
    """Administer the users directory."""


@commands.command("import")
def import_(
    context: typer.Context,
    *,
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="The file, UTF-8.")],
    file_format: Annotated[
        Format | None, typer.Option("--format", help="What the file is. Default: what its name ends with.")
    ] = None,
    reset_passwords: Annotated[
        bool, typer.Option("--reset-passwords", help="Give accounts that exist the file's passwords, too.")
    ] = False,
    admin_token: AdminToken,
    gateway: Gateway = "http://localhost:9090",
    as_json: AsJson = False,
) -> None:
    """Import users from a CSV file whose first line is `user_id,name`, or from a JSON array of such objects.

    Good rows take effect together. Bad rows are left out and named. To import the same file again changes nothing. If
    the server can make XMPP accounts, a column `password` creates them. Exit code 1: a row was left out.

    Examples:
      TLIM_ADMIN_TOKEN=$(make -s admin-token) tlim users import people.csv

      tlim users import people.json --json
    """
    file_format = file_format or (Format.JSON if file.suffix.lower() == ".json" else Format.CSV)
    media_type = _MEDIA_TYPES[file_format]
    report = run(_import(doors(context), gateway, admin_token, file, media_type, reset_passwords=reset_passwords))
    typer.echo(json_line(report) if as_json else "\n".join(_lines(report)))
    if report["invalid"]:
        raise typer.Exit(1)


async def _import(
    outside: Doors, gateway: str, token: str, file: Path, media_type: str, *, reset_passwords: bool
) -> Json:
    async with outside.http(gateway, token) as client:
        return await client.import_users(file, media_type, reset_passwords=reset_passwords)


def _lines(report: Json) -> list[str]:
    lines = [f"{report['created']} created, {report['updated']} updated, {report['unchanged']} unchanged."]
    if report["accounts_created"] or report["accounts_changed"]:
        changed = f", {report['accounts_changed']} given a new password" if report["accounts_changed"] else ""
        lines.append(f"XMPP accounts: {report['accounts_created']} created{changed}.")
    if report["ignored_columns"]:
        lines.append(f"Columns not used: {printable(', '.join(report['ignored_columns']))}.")
    if report["invalid"]:
        lines.append(f"Rows left out: {len(report['invalid'])}.")
    return [*lines, *(f"  row {one['row']}: {printable(one['detail'])} ({one['code']})" for one in report["invalid"])]
