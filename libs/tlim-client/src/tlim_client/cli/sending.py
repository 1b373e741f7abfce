"""`tlim send`, `tlim read`, `tlim recall`: send messages, read receipts and recalls."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from tlim_protocol.envelope import Envelope
from tlim_protocol.registry import MsgType

from tlim_client.cli.context import As, AsJson, Doors, doors, run
from tlim_client.cli.output import clock, json_line
from tlim_client.compose import about, file_message, group_message, text_message
from tlim_client.http import Json
from tlim_client.inbox import Stored

Ids = Annotated[list[str], typer.Argument(metavar="MSG_ID...", help="Message ids, as `tlim listen --json` shows them.")]
Session = Annotated[str | None, typer.Option("--session", metavar="ID", help="The session they are in.")]
Timeout = Annotated[float, typer.Option(help="Seconds to keep trying for.")]


def send(
    context: typer.Context,
    *,
    to: Annotated[str | None, typer.Option(metavar="USER", help="Who shall get it.")] = None,
    session: Annotated[str | None, typer.Option(metavar="ID", help="The session whose members shall get it.")] = None,
    text: Annotated[str | None, typer.Argument(help="What to say; - reads it from standard input.")] = None,
    image: Annotated[Path | None, typer.Option(exists=True, dir_okay=False, help="Send a picture.")] = None,
    file: Annotated[Path | None, typer.Option(exists=True, dir_okay=False, help="Send any file.")] = None,
    voice: Annotated[Path | None, typer.Option(exists=True, dir_okay=False, help="Send a voice recording.")] = None,
    timeout: Timeout = 60,
    user: As = None,
    as_json: AsJson = False,
) -> None:
    """Send one message, to a user or into a session, and wait until the server has stored it.

    When the server does not answer, the same message is sent again. It is still stored and delivered only once.

    Examples:
      tlim send --to bob "hi"

      tlim send --to bob --image cat.png

      tlim send --session 1b2c… "hi, everybody"
    """
    files = {MsgType.IMAGE: image, MsgType.FILE: file, MsgType.VOICE: voice}
    chosen = [(kind, path) for kind, path in files.items() if path is not None]
    if len(chosen) + (text is not None) != 1:
        raise typer.BadParameter("say exactly one of: a text, --image, --file, --voice")
    if (to is None) == (session is None):
        raise typer.BadParameter("say exactly one of: --to, --session")
    content = chosen[0] if chosen else _utf8(str(text))
    envelope, stored = run(_send(doors(context), user, (to, session), content, give_up=timeout))
    if as_json:
        typer.echo(json_line({"msg_id": stored.msg_id, "seq": stored.seq, "time": stored.time, "body": envelope.body}))
    else:
        typer.echo(f"{clock(stored.time)} stored as number {stored.seq}, on its way to {to or session}")


def read(
    context: typer.Context,
    *,
    msg_ids: Ids,
    of: Annotated[str | None, typer.Option("--from", metavar="USER", help="Who wrote them.")] = None,
    session: Session = None,
    user: As = None,
) -> None:
    """Report messages of one conversation as read. Their author is told; in a session, all members are told.

    Examples:
      tlim read fd6c…

      tlim read fd6c… 1d2e… --session 1b2c…
    """
    run(_tell(doors(context), user, MsgType.READ, msg_ids, (of, session)))
    typer.echo(f"{len(msg_ids)} read.")


def recall(
    context: typer.Context,
    *,
    msg_ids: Ids,
    to: Annotated[str | None, typer.Option(metavar="USER", help="Whom you sent them to.")] = None,
    session: Session = None,
    user: As = None,
) -> None:
    """Take back messages of your own shortly after you sent them. Nobody can read them any more.

    Examples:
      tlim recall fd6c…

      tlim recall fd6c… --session 1b2c…
    """
    run(_tell(doors(context), user, MsgType.RECALL, msg_ids, (to, session)))
    typer.echo(f"{len(msg_ids)} recalled.")


Where = tuple[str | None, str | None]
"""A user or a session. Both are None when the server must be asked where the message is."""


def _utf8(text: str) -> str:
    """Return the typed text. For `-`, return the text of standard input."""
    try:
        return (sys.stdin.buffer.read() if text == "-" else text.encode()).decode()
    except UnicodeError as error:
        raise typer.BadParameter("the text is not UTF-8; send it as a --file") from error


async def _send(
    outside: Doors, user: str | None, where: Where, content: str | tuple[MsgType, Path], *, give_up: float
) -> tuple[Envelope, Stored]:
    profile = outside.profile(user)
    me, (to, session) = profile.user, where
    if isinstance(content, str):
        kind, element = MsgType.TEXT, {"text": content}
    else:
        kind, path = content
        async with outside.signed_in(user) as client:
            element = {"file_id": await client.upload(path)}
    if session is not None:
        envelope = group_message(me, session, kind, element)
    elif kind is MsgType.TEXT:
        envelope = text_message(me, str(to), element["text"])
    else:
        envelope = file_message(me, str(to), kind, element["file_id"])
    async with outside.xmpp(profile) as device:
        return envelope, await device.send_until_stored(envelope, give_up=give_up)


async def _tell(outside: Doors, user: str | None, kind: MsgType, msg_ids: Sequence[str], where: Where) -> None:
    profile = outside.profile(user)
    to, session = where if any(where) else await _place(outside, user, msg_ids[0])
    envelope = about(profile.user, kind, msg_ids, to=to, session_id=session)
    async with outside.xmpp(profile) as device:
        await device.send_until_stored(envelope)


async def _place(outside: Doors, user: str | None, msg_id: str) -> Where:
    """Return where a receipt or recall of that message goes: to the other person, or to the session."""
    async with outside.signed_in(user) as client:
        message: Json = await client.message(msg_id)
    session: str | None = message["session_id"]
    return (None, session) if session else (message["conversation"], None)
