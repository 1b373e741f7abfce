"""The names of XML elements in XMPP stanzas: our own, and the namespaces of the XEPs that carry them.

The modules of the XMPP servers (deploy/ejabberd, deploy/prosody) use the same names; a test compares them.
"""

from enum import StrEnum

TLIM_NS = "im.itonglian.com"
"""The namespace of our elements: fixed by the protocol, whatever the domain is called."""

FORWARD_NS = "urn:xmpp:forward:0"
"""XEP-0297: the XMPP server wraps messages for the bridge in it, and the bridge wraps copies for other devices."""

CARBONS_NS = "urn:xmpp:carbons:2"
"""XEP-0280: copies of what another device of the same user sent or received."""

HINTS_NS = "urn:xmpp:hints"
"""XEP-0334: marks stanzas that are not kept for a user who is offline."""

DELAY_NS = "urn:xmpp:delay"
"""XEP-0203: when a message was stored that a person gets later."""


class Tag(StrEnum):
    """The local names of our elements."""

    TLIM = "tlim"  # makes a message a tlim message; `location`, and from the server `seq` and `time`
    STORED = "stored"  # to the sending device: `msg_id`, `seq`, `time`
    ERROR = "error"  # to the sending device: `code`, `msg_id`, `field`
    RECALLED = "recalled"  # in a recall, for the XMPP server: the `msg_id` of an undelivered copy
    TOKEN = "token"  # noqa: S105 - in an IQ: asks for an HTTP token, and answers

    CAUGHT_UP = "caught-up"  # to a person's devices: all that was missed has come; `seq`, `more`
    MAILBOX = "mailbox"  # in a presence of the XMPP server: its module tells who comes and goes
    SESSION = "session"  # in a presence for a user's device: `id`, `confirmed`, `stale`
    MISSED = "missed"  # in a presence for a user: the message `seq` reached no session
    DRAINING = "draining"  # in a presence of a bridge: it leaves, and new messages go to other bridges

    @property
    def qualified(self) -> str:
        """The name as ElementTree writes it, `{namespace}local`."""
        return f"{{{TLIM_NS}}}{self}"
