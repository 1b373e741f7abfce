"""A tlim client over XMPP: send envelopes, receive typed events, resend until stored."""

import asyncio
import uuid
from collections.abc import Callable, Collection
from xml.etree.ElementTree import Element

from slixmpp import JID, Iq
from slixmpp.exceptions import IqError, IqTimeout
from tlim_protocol.envelope import Envelope, write_envelope
from tlim_protocol.errors import ErrorCode
from tlim_protocol.stanzas import Tag

from tlim_client.connection import Connection, ServerAddress
from tlim_client.failures import ClientError, NotReachableError, NotReceivedError, RefusedError
from tlim_client.inbox import Bounced, R, Received, Refused, Stored, anything
from tlim_client.stanzas import message_stanza

__all__ = ["STORED_TIMEOUT", "ServerAddress", "XmppClient"]

STORED_TIMEOUT = 5.0
"""A message is sent again after this many seconds without an answer. A healthy server needs far less."""

_TOKEN = Tag.TOKEN.qualified

_PASSING = {ErrorCode.UNAVAILABLE, ErrorCode.TOO_MANY_REQUESTS}
"""Refusals that depend on the moment and not on the message: the message may be sent again."""

_MALFORMED = {"bad-request", "jid-malformed"}
"""Error conditions (RFC 6120 section 8.3.3) that the same stanza gets every time: it is not sent again."""


class XmppClient(Connection):
    """One device of one user that speaks tlim. Received events go to `inbox`."""

    def send(self, envelope: Envelope, *, to: str | None = None) -> str:
        """Send an envelope to the address that the server expects, or to the JID `to`. Returns the stanza id."""
        return self._send(write_envelope(envelope), to or self.server.entrance(envelope.msg_to))

    def send_body(
        self, body: str | None, to: str, *, location: str | None = "mobile", sender: str | None = None
    ) -> str:
        """Send any text, or no body at all, in a tlim message. Without `location` it is an ordinary XMPP message.

        `sender` sets a `from` in the stanza, as only a forger does. Returns the stanza id.
        """
        return self._send(body, self.address_of(to), location=location, sender=sender)

    def send_stanza(self, stanza: Element) -> None:
        """Send a `<message>` as it is. While the connection is made again, it waits in slixmpp's queue."""
        message = self._connected().make_message(self.server.domain)
        message.xml = stanza
        message.send()

    def send_xml(self, text: str) -> None:
        """Write any text into the stream, well-formed or not. Raises NotReachableError when there is no stream."""
        stream = self._connected()
        if not stream.is_connected():
            raise NotReachableError("the XMPP connection is down")
        stream.send_raw(text)

    async def expect(self, kind: type[R], where: Callable[[R], bool] = anything, within: float = 20) -> R:
        """Return the next event of `kind` for which `where` holds; NotReceivedError after `within` seconds."""
        return await self.inbox.take(kind, where, within)

    async def send_until_stored(
        self, envelope: Envelope, *, to: str | None = None, retry_after: float = STORED_TIMEOUT, give_up: float = 60
    ) -> Stored:
        """Send, and send again with the same msg_id until the server has stored it (docs/wire-protocol.md, "Promises").

        The message is sent again after `retry_after` seconds of silence. It is also sent again after a temporary
        refusal: error-010, a bounce while the bridge is away, or error-017, which says how long to wait. Raises
        RefusedError at once for any other refusal, ClientError for a stanza that no server accepts, and
        NotReceivedError after `give_up` seconds.
        """
        trouble = "no answer"
        stanza_ids = set[str]()
        try:
            async with asyncio.timeout(give_up):
                while True:
                    stanza_ids.add(self.send(envelope, to=to))
                    answer = await self._answer(stanza_ids, retry_after)
                    if isinstance(answer, Stored):
                        return answer
                    if answer is not None:
                        trouble = str(_worth_another_try(answer))
                        named = answer.retry_after if isinstance(answer, Refused) else None
                        await asyncio.sleep(named or retry_after / 10)
        except TimeoutError:
            raise NotReceivedError(f"not stored within {give_up:g} s: {trouble}") from None

    async def fetch_token(self, within: float = 20) -> str:
        """Ask the bridge for a bearer token for the HTTP API. A logged-in user needs no password for it.

        Raises ClientError, with the error condition of RFC 6120, when it is refused or not answered.
        """
        request: Iq = self._connected().make_iq_get(ito=self.server.bridge)
        request.append(Element(_TOKEN))
        try:
            answer: Iq = await request.send(timeout=within)  # type: ignore[no-untyped-call] # slixmpp has not annotated it
        except IqError as error:
            raise ClientError(f"no token: {error.condition}") from error
        except IqTimeout as error:
            raise NotReceivedError(f"no token within {within:g} s") from error
        return answer.xml.findtext(_TOKEN) or ""

    async def features_of(self, jid: str, within: float = 20) -> set[str]:
        """Return the features of a JID by service discovery (XEP-0030). Raises ClientError."""
        try:
            answer = await self._connected().plugin["xep_0030"].get_info(jid=JID(jid), timeout=within)
        except (IqError, IqTimeout) as error:
            raise ClientError(f"{jid} does not say what it can do: {error.condition}") from error
        return set(answer["disco_info"]["features"])

    def _send(self, body: str | None, jid: str, *, location: str | None = "mobile", sender: str | None = None) -> str:
        stanza_id = str(uuid.uuid4())
        self.send_stanza(message_stanza(jid, body, stanza_id, location=location, sender_jid=sender))
        return stanza_id

    async def _answer(self, stanza_ids: Collection[str], within: float) -> Stored | Refused | Bounced | None:
        """Return the answer to one of these stanzas, or None after `within` seconds.

        The msg_id does not tell: a message that was sent twice has two answers. The second answer must not be taken for
        the answer to what is sent later under this msg_id.
        """

        def about_it(event: Received) -> Stored | Refused | Bounced | None:
            if isinstance(event, Stored | Refused | Bounced) and event.stanza_id in stanza_ids:
                return event
            return None

        try:
            return await self.inbox.pick(about_it, within)
        except NotReceivedError:
            return None


def _worth_another_try(answer: Refused | Bounced) -> str:
    """Return the reason of a temporary refusal or bounce. Raises RefusedError for a final refusal."""
    if isinstance(answer, Bounced):
        reason = f"{answer.condition} {answer.text}".rstrip()
        if answer.condition in _MALFORMED:
            raise ClientError(f"the XMPP server does not take it: {reason}")
        return reason
    if answer.code not in _PASSING:
        raise RefusedError(answer.code, answer.text, field=answer.field)
    return answer.text
