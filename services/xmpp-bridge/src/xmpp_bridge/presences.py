"""What the XMPP server's module and the bridge tell each other in presences; golden for the modules in deploy/.

| presence from | payload | meaning |
|---|---|---|
| the domain | `<mailbox/>` | this server keeps nothing of ours for people who are away |
| user/resource | `<session id=…/>` | a session that gets messages |
| user/resource | `<session id=… stale='true' confirmed=…/>` | it lost its network, and may resume (XEP-0198) |
| user/resource, `unavailable` | `<session id=… confirmed=…/>` | it gets messages no more |
| user, `unavailable` | `<missed seq=…/>` | a message reached no session |
| the bridge, `unavailable` | `<draining/>` | the bridge leaves: messages go to other bridges |
"""

from typing import NamedTuple
from xml.etree.ElementTree import Element

from tlim_protocol.errors import TlimError
from tlim_protocol.identity import normalize_user_id
from tlim_protocol.stanzas import TLIM_NS, Tag

from xmpp_bridge.translate import BridgeAddresses, read_user

MAX_SESSION_ID = 64
_MAX_DIGITS = 18  # a larger number would not fit into 63 bits


class Hello(NamedTuple):
    """The server's module is there. It says first who is present, and then who comes and goes."""


class Came(NamedTuple):
    """A session gets messages: it came, or was resumed, or has changed its presence."""

    user_id: str
    session_id: str


class Stale(NamedTuple):
    """A session lost its network. Messages wait in it until it is resumed, or ends."""

    user_id: str
    session_id: str
    confirmed: int | None


class Gone(NamedTuple):
    """A session gets messages no more. Its device has everything up to `confirmed`; None: nobody knows."""

    user_id: str
    session_id: str
    confirmed: int | None


class Missed(NamedTuple):
    """The message `seq` reached none of a person's sessions."""

    user_id: str
    seq: int


Sign = Hello | Came | Stale | Gone | Missed


def read_presence(stanza: Element, addresses: BridgeAddresses) -> Sign | None:
    """Return what a `<presence>` of the component's stream says about a mailbox, or None.

    A client can send a presence to the bridge too. The server stamps it with the client's own address. So nobody can
    speak of others, and nobody can say hello.
    """
    sender = stanza.get("from", "")
    if sender.lower() == addresses.domain:
        return Hello() if stanza.find(Tag.MAILBOX.qualified) is not None else None
    user_id = _user(sender, addresses)
    if user_id is None:
        return None
    session, missed = stanza.find(Tag.SESSION.qualified), stanza.find(Tag.MISSED.qualified)
    is_gone = stanza.get("type") == "unavailable"
    if session is not None and (is_gone or stanza.get("type") is None):
        return _read_session(user_id, session, is_gone=is_gone)
    seq = _number(missed, "seq")
    return Missed(user_id, seq) if seq is not None and is_gone else None


def write_draining(addresses: BridgeAddresses) -> str:
    """Return what a bridge says before it leaves. A server without our module ignores it (RFC 6121 section 4.5)."""
    return (
        f"<presence type='unavailable' from='{addresses.component}' to='{addresses.domain}'>"
        f"<{Tag.DRAINING} xmlns='{TLIM_NS}'/></presence>"
    )


def _read_session(user_id: str, session: Element, *, is_gone: bool) -> Sign | None:
    session_id, confirmed = session.get("id", ""), _number(session, "confirmed")
    if not 0 < len(session_id) <= MAX_SESSION_ID:
        return None
    if is_gone:
        return Gone(user_id, session_id, confirmed)
    return Stale(user_id, session_id, confirmed) if session.get("stale") == "true" else Came(user_id, session_id)


def _user(jid: str, addresses: BridgeAddresses) -> str | None:
    localpart = read_user(jid, addresses)
    try:
        return None if localpart is None else normalize_user_id(localpart)
    except TlimError:  # an account of the XMPP server that cannot be a user here
        return None


def _number(element: Element | None, name: str) -> int | None:
    digits = "" if element is None else element.get(name, "")
    return int(digits) if digits.isascii() and digits.isdigit() and len(digits) <= _MAX_DIGITS else None
