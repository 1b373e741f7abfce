"""`tlim download`: fetch a shared file."""

from pathlib import Path
from typing import Annotated

import typer

from tlim_client.cli.context import As, AsJson, Doors, doors, run
from tlim_client.cli.output import json_line, size
from tlim_client.http import Download


def download(
    context: typer.Context,
    *,
    file_id: Annotated[str, typer.Argument(help="The file id, as `tlim listen` shows it.")],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="A file, or a folder for a new file under its own name.")
    ] = Path(),
    user: As = None,
    as_json: AsJson = False,
) -> None:
    """Download a file that you uploaded or that somebody sent to you.

    Examples:
      tlim download 5c0c…

      tlim download 5c0c… -o cat.png --as bob
    """
    found = run(_download(doors(context), user, file_id, output))
    if as_json:
        typer.echo(json_line({"path": str(found.path), "media_type": found.media_type, "size": found.size}))
    else:
        typer.echo(f"{found.path} ({found.media_type}, {size(found.size)})")


async def _download(outside: Doors, user: str | None, file_id: str, output: Path) -> Download:
    async with outside.signed_in(user) as client:
        return await client.download(file_id, output)
