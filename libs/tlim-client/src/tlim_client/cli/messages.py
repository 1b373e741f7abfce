"""`tlim send`, `tlim listen`, `tlim history`: the conversation itself."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer
from tlim_protocol.envelope import Envelope
from tlim_protocol.registry import MsgType

from tlim_client.cli.context import As, AsJson, Doors, doors, run
from tlim_client.cli.output import clock, json_line, json_of_event, line_of_envelope, line_of_event, size
from tlim_client.compose import file_message, text_message
from tlim_client.failures import ClientError
from tlim_client.inbox import Delivered, Received, Stored


def send(
    context: typer.Context,
    *,
    to: Annotated[str, typer.Option(metavar="USER", help="Who shall get it.")],
    text: Annotated[str | None, typer.Argument(help="What to say; - reads it from standard input.")] = None,
    image: Annotated[Path | None, typer.Option(exists=True, dir_okay=False, help="Send a picture.")] = None,
    file: Annotated[Path | None, typer.Option(exists=True, dir_okay=False, help="Send any file.")] = None,
    voice: Annotated[Path | None, typer.Option(exists=True, dir_okay=False, help="Send a voice recording.")] = None,
    timeout: Annotated[float, typer.Option(help="Seconds to keep trying for.")] = 60,
    user: As = None,
    as_json: AsJson = False,
) -> None:
    """Send one message and wait until the server has stored it.

    When the server does not answer, the same message is sent again; it is stored and delivered once all the same.

    Examples:
      tlim send --to bob "hi"

      tlim send --to bob --image cat.png
    """
    files = {MsgType.IMAGE: image, MsgType.FILE: file, MsgType.VOICE: voice}
    chosen = [(kind, path) for kind, path in files.items() if path is not None]
    if len(chosen) + (text is not None) != 1:
        raise typer.BadParameter("say exactly one of: a text, --image, --file, --voice")
    content = chosen[0] if chosen else sys.stdin.read() if text == "-" else str(text)
    envelope, stored = run(_send(doors(context), user, to, content, give_up=timeout))
    if as_json:
        typer.echo(json_line({"msg_id": stored.msg_id, "seq": stored.seq, "time": stored.time, "body": envelope.body}))
    else:
        typer.echo(f"{clock(stored.time)} stored as number {stored.seq}, on its way to {to}")


def listen(
    context: typer.Context,
    *,
    save: Annotated[Path | None, typer.Option(file_okay=False, help="Download shared files into this folder.")] = None,
    count: Annotated[int | None, typer.Option(min=1, help="Stop after that many messages.")] = None,
    user: As = None,
    as_json: AsJson = False,
) -> None:
    """Print incoming messages as they arrive, until Ctrl-C; sends nothing.

    Messages that came while you were away are printed first. A repeated delivery is shown once.

    Examples:
      tlim listen

      tlim listen --as bob --save Downloads
    """
    if save is not None:
        save.mkdir(parents=True, exist_ok=True)
    run(_listen(doors(context), user, _Listening(save, count, as_json)))


def history(
    context: typer.Context,
    *,
    peer: Annotated[str, typer.Argument(help="The other user.")],
    limit: Annotated[int, typer.Option(min=1, help="At most that many messages.")] = 20,
    after: Annotated[int | None, typer.Option(help="Only what has a higher number than this, oldest first.")] = None,
    user: As = None,
    as_json: AsJson = False,
) -> None:
    """Print the stored conversation with PEER: the newest messages, oldest of them first.

    Examples:
      tlim history bob

      tlim history bob --after 1042 --json
    """
    found = run(_history(doors(context), user, peer, limit, after))
    for item in found if after is not None else reversed(found):
        typer.echo(json_line(item) if as_json else line_of_envelope(item, item["stored_at"]))


async def _send(
    outside: Doors, user: str | None, to: str, content: str | tuple[MsgType, Path], *, give_up: float
) -> tuple[Envelope, Stored]:
    profile = outside.profile(user)
    if isinstance(content, str):
        envelope = text_message(profile.user, to, content)
    else:
        kind, path = content
        async with outside.signed_in(user) as client:
            envelope = file_message(profile.user, to, kind, await client.upload(path))
    async with outside.xmpp(profile) as client:
        return envelope, await client.send_until_stored(envelope, give_up=give_up)


@dataclass(slots=True)
class _Listening:
    save: Path | None
    count: int | None
    as_json: bool


async def _listen(outside: Doors, user: str | None, how: _Listening) -> None:
    profile = outside.profile(user)
    seen: set[tuple[str, str]] = set()
    async with outside.xmpp(profile) as client:
        if not how.as_json:
            typer.echo(f"Listening as {profile.user}; Ctrl-C ends.", err=True)
        shown = 0
        while how.count is None or shown < how.count:
            event = await client.inbox.next()
            if _is_news(event, seen) and _show(event, as_json=how.as_json):
                shown += 1
                if how.save is not None and isinstance(event, Delivered):
                    await _save_files(outside, user, event.envelope, how)


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
    typer.echo(json_line(content) if as_json else content)
    return True


async def _save_files(outside: Doors, user: str | None, envelope: Envelope, how: _Listening) -> None:
    for file_id in envelope.file_ids:
        try:
            async with outside.signed_in(user) as client:
                download = await client.download(file_id, how.save or Path())
        except ClientError as error:  # one lost file must not end the listening
            typer.echo(f"tlim: {file_id}: {error}", err=True)
            continue
        if how.as_json:
            typer.echo(
                json_line({"kind": "saved", "file_id": file_id, "path": str(download.path), "size": download.size})
            )
        else:
            typer.echo(f"         saved {download.path} ({size(download.size)})")


async def _history(
    outside: Doors, user: str | None, peer: str, limit: int, after: int | None
) -> list[dict[str, object]]:
    async with outside.signed_in(user) as client:
        return await client.history(peer, limit=limit, after=after)
