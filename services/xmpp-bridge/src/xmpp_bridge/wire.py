"""slixmpp's component stream, cut down to what the bridge needs of it."""
# mypy: disallow-untyped-calls=False

from collections.abc import Callable
from xml.etree.ElementTree import Element

from slixmpp import ComponentXMPP

from xmpp_bridge.translate import IQ, MESSAGE, PRESENCE


class Wire(ComponentXMPP):
    """Hands messages, IQs and presences over as plain elements. slixmpp does the connection, parser and handshake.

    slixmpp's stanza objects, filters and matchers are left out: they would be most of the cost of a message.
    """

    def __init__(self, jid: str, secret: str, host: str, port: int, on_stanza: Callable[[Element], None]) -> None:
        super().__init__(jid, secret, host, port)
        self._on_stanza = on_stanza

    def _spawn_event(self, xml: Element) -> None:
        if xml.tag in {MESSAGE, IQ, PRESENCE}:
            self._on_stanza(xml)
        else:
            super()._spawn_event(xml)
