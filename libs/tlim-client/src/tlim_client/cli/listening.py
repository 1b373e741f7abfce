"""`tlim listen`: print messages and events as they arrive."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer
from tlim_protocol.envelope import Envelope
from tlim_protocol.registry import REGISTRY

from tlim_client.cli.context import As, AsJson, Doors, doors, run
from tlim_client.cli.output import json_line, json_of_event, line_of_event, size
from tlim_client.compose import receipt
from tlim_client.failures import ClientError
from tlim_client.inbox import CaughtUp, Delivered, Plain, Received
from tlim_client.xmpp import XmppClient


def listen(
    context: typer.Context,
    *,
    save: Annotated[Path | None, typer.Option(file_okay=False, help="Download shared files into this folder.")] = None,
    count: Annotated[int | None, typer.Option(min=1, help="Stop after that many messages.")] = None,
    receipts: Annotated[bool, typer.Option(help="Tell the sender that the message has arrived.")] = True,
    user: As = None,
    as_json: AsJson = False,
) -> None:
    """Print what comes in, as it arrives, until Ctrl-C: messages, receipts, recalls, changes of sessions.

    What you missed while you were away is printed first, oldest first, and then a line that you are caught up. A
    repeated delivery is shown once.

    Examples:
      tlim listen

      tlim listen --as bob --save Downloads
    """
    if save is not None:
        save.mkdir(parents=True, exist_ok=True)
    run(_listen(doors(context), user, _Listening(save, count, receipts, as_json)))


@dataclass(slots=True)
class _Listening:
    save: Path | None
    count: int | None
    receipts: bool
    as_json: bool


async def _listen(outside: Doors, user: str | None, how: _Listening) -> None:
    profile = outside.profile(user)
    seen: set[tuple[str, str]] = set()
    async with outside.xmpp(profile) as device:
        if not how.as_json:
            typer.echo(f"Listening as {profile.user}; Ctrl-C ends.", err=True)
        shown = 0
        while how.count is None or shown < how.count:
            event = await device.inbox.next()
            if not _is_news(event, seen) or not _show(event, as_json=how.as_json):
                continue
            if isinstance(event, Delivered) and REGISTRY[event.envelope.msg_type].is_chat:
                await _take(outside, user, device, event.envelope, how)
                shown += 1
            shown += isinstance(event, Plain)


def _is_news(event: Received, seen: set[tuple[str, str]]) -> bool:
    if not isinstance(event, Delivered):
        return True
    key = (event.envelope.msg_from, event.envelope.msg_id)
    is_new = key not in seen
    seen.add(key)
    return is_new


def _show(event: Received, *, as_json: bool) -> bool:
    content = json_of_event(event) if as_json else line_of_event(event)
    if content is None:
        return False
    if as_json:
        typer.echo(json_line(content))
    else:
        typer.echo(content, err=isinstance(event, CaughtUp))  # about the command, like its first line
    return True


async def _take(outside: Doors, user: str | None, device: XmppClient, envelope: Envelope, how: _Listening) -> None:
    """Report a message of another user as received and save its files, if the options ask for it."""
    if how.receipts and envelope.msg_from != device.user:
        device.send(receipt(device.user, envelope))  # if it is lost with the connection, only the author misses it
    if how.save is not None:
        await _save_files(outside, user, envelope, how)


async def _save_files(outside: Doors, user: str | None, envelope: Envelope, how: _Listening) -> None:
    for file_id in envelope.file_ids:
        try:
            async with outside.signed_in(user) as client:
                download = await client.download(file_id, how.save or Path())
        except ClientError as error:  # a file that fails must not end the command
            typer.echo(f"tlim: {file_id}: {error}", err=True)
            continue
        if how.as_json:
            typer.echo(
                json_line({"kind": "saved", "file_id": file_id, "path": str(download.path), "size": download.size})
            )
        else:
            typer.echo(f"         saved {download.path} ({size(download.size)})")
