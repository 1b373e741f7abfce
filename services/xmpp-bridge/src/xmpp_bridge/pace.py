"""How much each user may send. What is over is refused with error-017, and with the time when it would pass."""

from contextlib import suppress

from cachetools import LRUCache
from tlim_protocol.envelope import Envelope
from tlim_protocol.errors import ErrorCode, TlimError
from tlim_protocol.events import OutEvent, RejectedMessage, StoredMessage
from tlim_protocol.registry import REGISTRY, Effect
from tlim_runtime.errors import TooManyRequests
from tlim_runtime.throttle import Throttle

COST_OF_NOTHING = 20
"""A message counts as this many messages if it names a session, file or person that does not exist, or a session that
its sender is not in. It is expensive: the store asks another service each time, while the log is locked. By default a
person can do this 150 times a minute."""

_NOTHING_NAMED = frozenset(
    {ErrorCode.SESSION_UNKNOWN, ErrorCode.FILE_UNKNOWN, ErrorCode.USER_UNKNOWN, ErrorCode.NOT_ALLOWED}
)

_GROUPS_REMEMBERED = 10_000
"""About 2 MB. A group that was forgotten gets one message at the price of one person."""


class SenderPace:
    """Counts what each user sends. Each method raises TooManyRequests, and counts nothing, if a rate is used up.

    `messages` and `receipts` are counted by the elements of their bodies, because the store may have to look up each
    element. Receipts have a rate of their own: a device that comes online sends hundreds at once. `sizes` counts the
    bytes of a stanza before it is read. A compressed body is counted once more, when it is unpacked.

    `deliveries` counts people. One message to a group of 10,000 is the work of 10,000 messages, and only its sender
    can save that work. Only the store knows the people, so the bridge remembers how many each conversation had last.
    The first message to a group is counted when the store has said to whom it goes.
    """

    def __init__(self, *, messages: Throttle, receipts: Throttle, sizes: Throttle, deliveries: Throttle) -> None:
        self._messages = messages
        self._receipts = receipts
        self._sizes = sizes
        self._deliveries = deliveries
        self._people: LRUCache[tuple[str, Effect], int] = LRUCache(_GROUPS_REMEMBERED)

    def count_bytes(self, sender: str, size: int) -> None:
        """Count bytes that are about to be read."""
        self._sizes.hit(sender, size)

    def count_nonsense(self, sender: str, msg_id: str | None) -> None:
        """Count a message that is refused: nonsense must have a bound as well."""
        _hit(self._messages, sender, 1, msg_id)

    def count(self, sender: str, envelope: Envelope) -> None:
        """Count a message that can be taken over: its elements, and the people that it will probably reach."""
        is_receipt = REGISTRY[envelope.msg_type].effect is Effect.RECEIPT
        elements = self._receipts if is_receipt else self._messages
        _hit(elements, sender, len(envelope.body), envelope.msg_id)
        _hit(self._deliveries, sender, self._people.get(_audience(envelope), 1), envelope.msg_id)

    def heard(self, event: OutEvent) -> None:
        """Learn from the store's decision to how many people a message went, or that it named nothing."""
        with suppress(TooManyRequests):  # the sender has used up the rate already
            if isinstance(event, RejectedMessage):
                if event.code in _NOTHING_NAMED:
                    self._messages.hit(event.sender, COST_OF_NOTHING)
            elif event.is_news and event.tells_sender:
                self._learn(event)

    def _learn(self, event: StoredMessage) -> None:
        audience, people = _audience(event.envelope), len(event.recipients)
        if audience in self._people:
            self._people[audience] = people
        elif people > 1:  # one person is the price of whatever is not remembered
            self._people[audience] = people
            self._deliveries.hit(event.envelope.msg_from, people)


def _audience(envelope: Envelope) -> tuple[str, Effect]:
    return envelope.conversation_id, REGISTRY[envelope.msg_type].effect


def _hit(throttle: Throttle, sender: str, count: int, msg_id: str | None) -> None:
    try:
        throttle.hit(sender, count)
    except TlimError as refusal:
        refusal.msg_id = msg_id
        raise
