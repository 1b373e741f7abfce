"""What people sent and got over XMPP, and the judgement on it. It knows nothing else of the servers.

A message that nobody acknowledged may come or not. So may one that was recalled, and a receipt: those are left out if
many were missed.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field

from tlim_client.inbox import Delivered, Stored
from tlim_protocol.envelope import Envelope
from tlim_protocol.registry import REGISTRY, Effect

from tests.torture.device import Heard


@dataclass
class Sent:
    """A message that a client has sent; `stored` when the server has acknowledged it."""

    envelope: Envelope
    receivers: frozenset[str]
    stored: Stored | None = None


@dataclass
class Book:
    """The account of a run."""

    sent: dict[str, Sent] = field(default_factory=dict)
    recalled: set[str] = field(default_factory=set)
    devices: list[Heard] = field(default_factory=list)
    haunted: set[str] = field(default_factory=set)  # people who had a session that nobody ended
    wrong: list[str] = field(default_factory=list)

    def device(self, user_id: str, label: str) -> Heard:
        """Return a new page for a device of a person."""
        heard = Heard(user_id, label, frozenset(self.had(user_id)))
        self.devices.append(heard)
        return heard

    def had(self, user_id: str) -> Iterator[str]:
        """Yield what has come to a person so far."""
        for heard in self.devices:
            if heard.user_id == user_id:
                yield from (message.envelope.msg_id for message in heard.messages)

    def judge(self, people: list[str]) -> list[str]:
        """Return all that is wrong, one line each."""
        self._numbers()
        for user_id in people:
            self._complete(user_id)
        for heard in self.devices:
            self._only_own(heard)
            self._in_order(heard)
        return self.wrong

    def repetitions(self) -> Counter[str]:
        """Return how often a message came again: to the same device, and to a later one."""
        count = Counter[str]()
        for heard in self.devices:
            seen = set[str]()
            for message in heard.messages:
                msg_id = message.envelope.msg_id
                count["first" if msg_id not in heard.had | seen else "again"] += 1
                count["same device"] += msg_id in seen
                seen.add(msg_id)
        return count

    def _numbers(self) -> None:
        seqs = defaultdict[str, set[int]](set)
        for one in self.sent.values():
            if one.stored is not None:
                seqs[one.envelope.msg_id].add(one.stored.seq)
        for heard in self.devices:
            for message in (*heard.messages, *heard.copies):
                if message.seq is not None:
                    seqs[message.envelope.msg_id].add(message.seq)
        owners = Counter(seq for several in seqs.values() for seq in several)
        self.wrong += [f"{msg_id} has several seqs: {several}" for msg_id, several in seqs.items() if len(several) > 1]
        self.wrong += [f"seq {seq} is that of several messages" for seq, count in owners.items() if count > 1]

    def _complete(self, user_id: str) -> None:
        had = set(self.had(user_id))
        for msg_id, one in self.sent.items():
            if user_id not in one.receivers or one.stored is None or msg_id in self.recalled or msg_id in had:
                continue
            if REGISTRY[one.envelope.msg_type].effect is not Effect.RECEIPT:
                self.wrong.append(f"{user_id} lacks {one.envelope.msg_type} {msg_id} seq {one.stored.seq}")

    def _only_own(self, heard: Heard) -> None:
        for message in heard.messages:
            if REGISTRY[message.envelope.msg_type].effect is Effect.NOTICE:
                continue
            one = self.sent.get(message.envelope.msg_id)
            if one is None or heard.user_id not in one.receivers:
                self.wrong.append(f"{heard.label} got what is not theirs: {message}")
            elif one.envelope.body != message.envelope.body:
                self.wrong.append(f"{heard.label} got another body: {message}")
        for message in heard.copies:
            if message.envelope.msg_from != heard.user_id:
                self.wrong.append(f"{heard.label} got a copy of what is not theirs: {message}")

    def _in_order(self, heard: Heard) -> None:
        highest: dict[str, int] = {}
        seen = set[str]()
        for message in heard.messages:
            key, seq = message.envelope.conversation_id, message.seq or 0
            if message.envelope.msg_id in seen:
                continue
            seen.add(message.envelope.msg_id)
            if seq < highest.get(key, 0) and not self._is_explained(heard, message):
                state = f"delayed={message.delayed} had={message.envelope.msg_id in heard.had}"
                kind = message.envelope.msg_type
                self.wrong.append(f"{heard.label}: seq {seq} {kind} first came after {highest[key]} {state}")
            highest[key] = max(seq, highest.get(key, 0))

    def _is_explained(self, heard: Heard, message: Delivered) -> bool:
        # A device that came beside a session that had broken off gets later what that session had not confirmed.
        return message.delayed and heard.user_id in self.haunted
