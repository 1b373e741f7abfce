"""`tlim history`, `sync`, `conversations`, `search`, `message`: read stored messages."""

from collections.abc import Awaitable, Callable
from typing import Annotated, TypeVar

import typer

from tlim_client.cli.context import As, AsJson, Doors, doors, run
from tlim_client.cli.output import clock, json_line, line_of_conversation, line_of_envelope
from tlim_client.http import HttpClient

T = TypeVar("T")

Limit = Annotated[int, typer.Option(min=1, help="At most that many.")]


def history(
    context: typer.Context,
    *,
    peer: Annotated[str, typer.Argument(help="The other user, or a session's id.")],
    limit: Limit = 20,
    after: Annotated[int | None, typer.Option(help="Only what has a higher number than this, oldest first.")] = None,
    user: As = None,
    as_json: AsJson = False,
) -> None:
    """Print the newest messages of the conversation with PEER, in the order in which they were stored.

    Examples:
      tlim history bob

      tlim history bob --after 1042 --json
    """
    found = _ask(context, user, lambda client: client.history(peer, limit=limit, after=after))
    for item in found if after is not None else reversed(found):
        typer.echo(json_line(item) if as_json else line_of_envelope(item, item["stored_at"]))


def sync(
    context: typer.Context,
    *,
    after: Annotated[int, typer.Option(min=0, help="The number that the last sync ended with.")] = 0,
    limit: Annotated[int | None, typer.Option(min=1, help="At most that many.")] = None,
    user: As = None,
    as_json: AsJson = False,
) -> None:
    """Print everything addressed to you after a number, in order. The last line is the number to go on from.

    Examples:
      tlim sync

      tlim sync --after 1042 --json
    """
    found, after = _ask(context, user, lambda client: client.sync(after, limit=limit))
    for item in found:
        typer.echo(json_line(item) if as_json else line_of_envelope(item, item["stored_at"]))
    typer.echo(json_line({"next": after}) if as_json else f"--after {after}")


def conversations(context: typer.Context, *, limit: Limit = 20, user: As = None, as_json: AsJson = False) -> None:
    """List your conversations, the newest first, with the number of unread messages.

    Example: tlim conversations
    """
    for item in _ask(context, user, lambda client: client.conversations(limit=limit)):
        typer.echo(json_line(item) if as_json else line_of_conversation(item))


def search(
    context: typer.Context,
    *,
    text: Annotated[str, typer.Argument(help="What to look for, anywhere in a message.")],
    conversation: Annotated[str | None, typer.Option("--in", help="Only with this user, or in this session.")] = None,
    sender: Annotated[str | None, typer.Option("--from", metavar="USER", help="Only messages of USER.")] = None,
    limit: Limit = 20,
    user: As = None,
    as_json: AsJson = False,
) -> None:
    """Print messages that contain TEXT, newest first.

    Example: tlim search 发票 --in bob
    """
    only = {name: value for name, value in {"conversation": conversation, "sender": sender}.items() if value}
    for item in _ask(context, user, lambda client: client.search(text, limit=limit, **only)):
        typer.echo(json_line(item) if as_json else line_of_envelope(item, item["stored_at"]))


def message(
    context: typer.Context,
    *,
    msg_id: Annotated[str, typer.Argument(help="The message's id.")],
    user: As = None,
    as_json: AsJson = False,
) -> None:
    """Print a message, and the users that have received and read it.

    Example: tlim message fd6c…
    """
    found = _ask(context, user, lambda client: client.message(msg_id))
    if as_json:
        typer.echo(json_line(found))
        return
    typer.echo(line_of_envelope(found, found["stored_at"]))
    for entry in found["receipts"]:
        received, read = (clock(entry[name]) if entry.get(name) else "—" for name in ("delivered_at", "read_at"))
        typer.echo(f"  {entry['user_id']}: received {received}, read {read}")


def _ask(context: typer.Context, user: str | None, question: Callable[[HttpClient], Awaitable[T]]) -> T:
    return run(_signed_in(doors(context), user, question))


async def _signed_in(outside: Doors, user: str | None, question: Callable[[HttpClient], Awaitable[T]]) -> T:
    async with outside.signed_in(user) as client:
        return await question(client)
