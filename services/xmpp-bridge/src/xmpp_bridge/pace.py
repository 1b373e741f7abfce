"""How much each user may send. What is over is refused with error-017, and with the time when it would pass."""

from contextlib import suppress

from cachetools import LRUCache
from tlim_protocol.envelope import Envelope
from tlim_protocol.errors import ErrorCode, TlimError
from tlim_protocol.events import OutEvent, RejectedMessage, StoredMessage
from tlim_protocol.registry import REGISTRY, Effect, MsgType
from tlim_runtime.errors import TooManyRequests
from tlim_runtime.throttle import Throttle

from xmpp_bridge.lanes import weight

COST_OF_NOTHING = 20
"""A message counts as this many messages if it names a session, file or person that does not exist, or a session that
its sender is not in. It is expensive: the store asks another service each time, while the log is locked. By default a
person can do this 150 times a minute."""

_NOTHING_NAMED = frozenset(
    {ErrorCode.SESSION_UNKNOWN, ErrorCode.FILE_UNKNOWN, ErrorCode.USER_UNKNOWN, ErrorCode.NOT_ALLOWED}
)

_GROUPS_REMEMBERED = 10_000
"""About 2 MB. A group is forgotten when others were written to more recently, and when the bridge starts."""

_UNPRICED = "10/minute"
"""So many messages to groups of unknown size may be on their way from one user. A message stops counting when the
store has answered. Ten messages to groups of 10,000 are what the deliveries of one minute allow by default."""

_UNPRICED_REMEMBERED = 10_000
"""About 2 MB: the messages of 1,000 users."""


Audience = tuple[str, Effect | MsgType]
"""A conversation, and what is told to equally many people in it."""


class SenderPace:
    """Counts what each user sends. The methods that count raise TooManyRequests if a rate is used up.

    `messages` and `receipts` are counted by the elements of their bodies, because the store may have to look up each
    element. Receipts have a rate of their own: a device that comes online sends hundreds at once. `sizes` counts the
    bytes of a stanza before it is read. A compressed body is counted once more, when it is unpacked.

    `deliveries` counts people. One message to a group of 10,000 is the work of 10,000 messages, and only its sender
    can save that work. A large message counts as several for each of them (lanes.weight). Only the store knows the
    people, so the bridge remembers how many each conversation had last.
    While it knows nothing of a group, a user's messages to it are few, and they are counted when the store has said
    to whom they go.
    """

    def __init__(self, *, messages: Throttle, receipts: Throttle, sizes: Throttle, deliveries: Throttle) -> None:
        self._messages = messages
        self._receipts = receipts
        self._sizes = sizes
        self._deliveries = deliveries
        self._people: LRUCache[Audience, int] = LRUCache(_GROUPS_REMEMBERED)
        self._at_unknown_price = Throttle(_UNPRICED, "user")
        self._unpriced: LRUCache[tuple[str, str], int] = LRUCache(_UNPRICED_REMEMBERED)  # sender, msg_id: its weight

    def count_bytes(self, sender: str, size: int) -> None:
        """Count bytes that are about to be read."""
        self._sizes.hit(sender, size)

    def count_nonsense(self, sender: str, msg_id: str | None) -> None:
        """Count a message that is refused: nonsense must have a bound as well."""
        _hit(self._messages, sender, 1, msg_id)

    def count(self, sender: str, envelope: Envelope, size: int) -> None:
        """Count a message that can be taken over: its elements, and whom it will probably reach.

        `size` is in bytes, its values counted as footprint.VALUE_BYTES each.
        """
        is_receipt = REGISTRY[envelope.msg_type].effect is Effect.RECEIPT
        elements = self._receipts if is_receipt else self._messages
        _hit(elements, sender, len(envelope.body), envelope.msg_id)
        self.count_people(sender, envelope, size)

    def count_people(self, sender: str, envelope: Envelope, size: int) -> None:
        """Count whom a message of this `size`, as above, will probably reach."""
        people = self._people.get(_audience(envelope))
        message, each = (sender, envelope.msg_id), weight(size)
        if people is None and REGISTRY[envelope.msg_type].is_group and message not in self._unpriced:
            _hit(self._at_unknown_price, sender, 1, envelope.msg_id)
            self._unpriced[message] = each
        _hit(self._deliveries, sender, each if people is None else each * people, envelope.msg_id)

    def heard(self, event: OutEvent) -> None:
        """Learn from the store's decision to how many people a message went, or that it named nothing."""
        with suppress(TooManyRequests):  # the sender has used up the rate already
            if isinstance(event, RejectedMessage):
                self._is_priced_now(event.sender, event.msg_id)
                if event.code in _NOTHING_NAMED:
                    self._messages.hit(event.sender, COST_OF_NOTHING)
            elif REGISTRY[event.envelope.msg_type].effect is Effect.NOTICE:
                self._people[event.envelope.conversation_id, Effect.CHAT] = event.reach
            else:
                self._learn(event)

    def _learn(self, event: StoredMessage) -> None:
        if not event.tells_sender:
            return  # a piece for people of another shard
        envelope, people = event.envelope, event.reach
        each = self._is_priced_now(envelope.msg_from, envelope.msg_id)
        if envelope.session_id is None or not event.is_news:
            return  # one person is the price of whatever is not remembered
        was_unknown = _audience(envelope) not in self._people
        self._people[_audience(envelope)] = people
        if each or was_unknown:
            self._deliveries.hit(envelope.msg_from, people * (each or 1))

    def _is_priced_now(self, sender: str, msg_id: str) -> int:
        """Note that the store has answered a message; return its weight if it was sent to a group of unknown size."""
        each = self._unpriced.pop((sender, msg_id), 0)
        if each:
            self._at_unknown_price.give_back(sender)
        return each


def _audience(envelope: Envelope) -> Audience:
    effect = REGISTRY[envelope.msg_type].effect
    # Only the author hears that a message was received. In a small group everybody hears that it was read.
    return envelope.conversation_id, envelope.msg_type if effect is Effect.RECEIPT else effect


def _hit(throttle: Throttle, sender: str, count: int, msg_id: str | None) -> None:
    try:
        throttle.hit(sender, count)
    except TlimError as refusal:
        refusal.msg_id = msg_id
        raise
