"""An answer is for the stanza that it names, so that one message is never confirmed or refused in place of another."""

from collections.abc import Callable
from xml.etree.ElementTree import Element

import pytest
from tlim_client.compose import text_message
from tlim_client.failures import RefusedError
from tlim_client.inbox import Received, Refused, Stored
from tlim_client.xmpp import ServerAddress, XmppClient
from tlim_protocol.errors import ErrorCode

MESSAGE = text_message("alice", "bob", "hi")
OTHER = MESSAGE.model_copy(update={"body": [{"text": "something else"}]})
"""Another message under the same msg_id: the server refuses it."""


class Device(XmppClient):
    """A device with a slow server: it answers a message when a second copy of it comes. Later it answers at once."""

    def __init__(self, answer: Callable[[str], Received], later: Callable[[str], Received]) -> None:
        super().__init__(ServerAddress(), "alice", "secret")
        self._answer_to, self._later = answer, later
        self._sent: list[str] = []

    def send_stanza(self, stanza: Element) -> None:
        self._sent.append(stanza.get("id", ""))
        if len(self._sent) == 2:
            for stanza_id in self._sent:
                self.inbox.put(self._answer_to(stanza_id))
        elif len(self._sent) > 2:
            self.inbox.put(self._later(self._sent[-1]))


def _stored(stanza_id: str) -> Stored:
    return Stored(MESSAGE.msg_id, 7, 1_000, stanza_id)


def _refused(stanza_id: str) -> Refused:
    code = ErrorCode.FIELD_INVALID
    return Refused(code, MESSAGE.msg_id, "msg_id", "used already", stanza_id, code.value)


async def test_what_confirms_a_resend_does_not_confirm_another_message_under_its_msg_id() -> None:
    device = Device(_stored, later=_refused)
    assert await device.send_until_stored(MESSAGE, retry_after=0.01) == _stored("any")

    with pytest.raises(RefusedError):
        await device.send_until_stored(OTHER)


async def test_what_refuses_a_resend_does_not_refuse_the_right_message_later() -> None:
    device = Device(_refused, later=_stored)
    with pytest.raises(RefusedError):
        await device.send_until_stored(OTHER, retry_after=0.01)

    assert await device.send_until_stored(MESSAGE) == _stored("any")
