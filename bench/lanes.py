"""Writers and their readers: pairs, and rooms of the three kinds that are compared."""

import secrets
from collections.abc import Callable, Sequence
from enum import StrEnum
from functools import partial
from typing import NamedTuple

from tlim_client.compose import group_message, text_message
from tlim_protocol.envelope import Envelope, write_envelope
from tlim_protocol.registry import MsgType
from tlim_protocol.stanzas import TLIM_NS, Tag

from bench.stream import Stanza, Stream

TEXT = "as long as people's messages are, which is about a hundred characters or so, and never the same: "
ID = "@id@"


class RoomKind(StrEnum):
    """How a group is made."""

    SESSION = "tlim session"
    MUC = "MUC (XEP-0045)"
    MUC_SUB = "MUC/Sub"  # https://docs.ejabberd.im/developer/xmpp-clients-bots/extensions/muc-sub/


class Room(NamedTuple):
    """A group: its kind, and its session_id or the JID of its room."""

    kind: RoomKind
    name: str


class Lane:
    """A writer and its readers. The stanza is made once, and only its id changes.

    `confirms`: the writer is told about each message too, by `stored` or by its own copy.
    """

    def __init__(self, writer: Stream, readers: Sequence[Stream], stanza: str, *, confirms: bool) -> None:
        self.writer, self.readers, self.confirms = writer, readers, confirms
        self._stanza, self._id = stanza.encode(), ID.encode()

    def write(self, message_id: str) -> None:
        """Send the stanza with an id of its own."""
        self.writer.send(self._stanza.replace(self._id, message_id.encode()))

    def listen(self, arrives: Callable[["Lane", Stanza], None], confirms: Callable[["Lane", Stanza], None]) -> None:
        """Call the first for each message to a reader, and the second for each to the writer."""
        self.writer.on_message = partial(confirms, self)
        for reader in self.readers:
            reader.on_message = partial(arrives, self)


def pairs_of(streams: Sequence[Stream]) -> list[Lane]:
    """Let the first write to the second, the third to the fourth, and so on."""
    lanes = []
    for writer, reader in zip(streams[::2], streams[1::2], strict=True):
        to = f"{reader.account.user_id}@{reader.target.domain}"
        is_tlim = writer.target.speaks_tlim
        envelope = text_message(writer.account.user_id, reader.account.user_id, TEXT + ID)
        stanza = _tlim(envelope, to) if is_tlim else f"<message type='chat' id='{ID}' to='{to}'>{_plain()}</message>"
        lanes.append(Lane(writer, [reader], stanza, confirms=is_tlim))
    return lanes


async def room_of(streams: Sequence[Stream], room: Room) -> Lane:
    """Let everybody enter the room. The first, which makes it, writes to the others."""
    writer, *readers = streams
    if room.kind is RoomKind.SESSION:  # it is there already, with its members
        envelope = group_message(writer.account.user_id, room.name, MsgType.TEXT, {"text": TEXT + ID})
        return Lane(writer, readers, _tlim(envelope, writer.target.domain), confirms=True)
    for member in streams:
        if room.kind is RoomKind.MUC or member is writer:
            await _enter(member, room.name)
        else:
            await _subscribe(member, room.name)
    stanza = f"<message type='groupchat' id='{ID}' to='{room.name}'>{_plain()}</message>"
    return Lane(writer, readers, stanza, confirms=True)


async def _enter(member: Stream, room: str) -> None:
    nick = f"{room}/{member.account.user_id}"
    member.send(f"<presence to='{nick}'><x xmlns='http://jabber.org/protocol/muc'/></presence>".encode())
    while (await member.answer("presence"))[0][1].get("from") != nick:  # our own comes last (XEP-0045 section 7.2.2)
        pass


async def _subscribe(member: Stream, room: str) -> None:
    wanted = "<event node='urn:xmpp:mucsub:nodes:messages'/>"
    subscribe = f"<subscribe xmlns='urn:xmpp:mucsub:0' nick='{member.account.user_id}'>{wanted}</subscribe>"
    member.send(f"<iq type='set' id='s{secrets.token_hex(4)}' to='{room}'>{subscribe}</iq>".encode())
    await member.answer("iq")


def _plain() -> str:
    return f"<body>{TEXT}{ID}</body>"


def _tlim(envelope: Envelope, to: str) -> str:
    text = write_envelope(envelope).replace(envelope.msg_id, ID).replace("&", "&amp;").replace("<", "&lt;")
    mark = f"<{Tag.TLIM} xmlns='{TLIM_NS}' location='web'/>"
    return f"<message type='chat' id='{ID}' to='{to}'><body>{text}</body>{mark}</message>"
