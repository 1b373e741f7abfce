"""The rules of a batch, with hand-written fakes around them."""

from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
from message_store.errors import DirectoryUnavailable
from message_store.repository import Kept, NewMessage, Refused
from message_store.service import DIRECT_TYPES, Recorder, flaw_of
from tlim_protocol.envelope import Envelope
from tlim_protocol.errors import ErrorCode
from tlim_protocol.events import AcceptedMessage, OutEvent, RejectedMessage, StoredMessage
from tlim_protocol.registry import CLIENT_TYPES, REGISTRY, MsgType

NOW = 1_700_000_000_000
STORED_BEFORE = NOW - 60_000


class FakeArchive:
    """A table in a dictionary: refuses the msg_ids in `bad`."""

    def __init__(self) -> None:
        self.rows: dict[tuple[str, str], tuple[int, int]] = {}
        self.conversations: set[str] = set()
        self.bad: set[str] = set()
        self.noted: list[int] = []
        self.recorded: list[NewMessage] = []

    async def unknown_conversations(self, conversation_ids: Collection[str]) -> set[str]:
        return set(conversation_ids) - self.conversations

    async def record(
        self, messages: Sequence[NewMessage], *, new_conversations: Collection[str], stored_at: int, published: int
    ) -> Sequence[Kept | Refused]:
        self.conversations |= set(new_conversations)
        self.noted.append(published)
        return [self._record(message, stored_at) for message in messages]

    def _record(self, message: NewMessage, stored_at: int) -> Kept | Refused:
        if message.msg_id in self.bad:
            return Refused("no room")
        is_new = (message.sender, message.msg_id) not in self.rows
        if is_new:
            self.recorded.append(message)
        return Kept(*self.rows.setdefault((message.sender, message.msg_id), (len(self.rows) + 1, stored_at)), is_new)


class FakeDirectory:
    """Knows bob and alice; `known = None` is an outage."""

    def __init__(self) -> None:
        self.users: set[str] | None = {"alice", "bob"}
        self.questions: list[tuple[set[str], set[str]]] = []

    async def known(self, *, seen: Collection[str], ask: Collection[str]) -> set[str]:
        self.questions.append((set(seen), set(ask)))
        if self.users is None:
            raise DirectoryUnavailable
        return self.users & set(ask)


class FakePublication:
    """Remembers what was published."""

    def __init__(self) -> None:
        self.seq = 0
        self.events: list[OutEvent] = []

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        yield

    async def publish(self, events: Sequence[tuple[str, OutEvent]], newest: int) -> None:
        self.events += [event for _, event in events]
        self.seq = newest


class FakeCounters:
    """Counts."""

    def __init__(self) -> None:
        self.total = 0
        self.codes: list[ErrorCode] = []

    def stored(self, count: int) -> None:
        self.total += count

    def rejected(self, code: ErrorCode) -> None:
        self.codes.append(code)


class Bench:
    """A recorder among fakes."""

    def __init__(self) -> None:
        self.archive = FakeArchive()
        self.directory = FakeDirectory()
        self.publication = FakePublication()
        self.counters = FakeCounters()
        self.recorder = Recorder(self.archive, self.directory, self.publication, self.counters, lambda: NOW)

    async def record(self, *messages: AcceptedMessage) -> list[str | None]:
        return await self.recorder.record(messages)

    @property
    def stored(self) -> list[StoredMessage]:
        return [event for event in self.publication.events if isinstance(event, StoredMessage)]

    @property
    def rejected(self) -> list[RejectedMessage]:
        return [event for event in self.publication.events if isinstance(event, RejectedMessage)]


@pytest.fixture
def bench() -> Bench:
    return Bench()


def accepted(msg_id: str = "m1", msg_type: MsgType = MsgType.TEXT, **envelope: Any) -> AcceptedMessage:
    fields: dict[str, Any] = {
        "msg_from": "alice", "msg_to": "bob", "msg_time": "1", "body": [dict(REGISTRY[msg_type].example)],
    }  # fmt: skip
    return AcceptedMessage(
        sender="alice",
        reply_to="alice@im.example/web",
        stanza_id="s1",
        location="web",
        received_at=NOW - 5,
        envelope=Envelope(msg_id=msg_id, msg_type=msg_type, **{**fields, **envelope}),
    )


async def test_a_new_message_is_delivered_to_its_receiver(bench: Bench) -> None:
    assert await bench.record(accepted()) == [None]
    (event,) = bench.stored
    assert (event.seq, event.stored_at, event.recipients) == (1, NOW, ["bob"])
    assert (event.reply_to, event.stanza_id) == ("alice@im.example/web", "s1")
    assert bench.counters.total == 1


async def test_a_message_to_oneself_is_delivered_to_oneself(bench: Bench) -> None:
    await bench.record(accepted(msg_to="alice"))
    assert bench.stored[0].recipients == ["alice"]


async def test_a_message_that_came_before_is_confirmed_with_its_first_seq_and_not_delivered(bench: Bench) -> None:
    bench.archive.rows["alice", "m1"] = (7, STORED_BEFORE)
    bench.publication.seq = 9
    await bench.record(accepted())
    (event,) = bench.stored
    assert (event.seq, event.stored_at, event.recipients) == (7, STORED_BEFORE, [])
    assert bench.publication.seq == 9
    assert bench.counters.total == 0


async def test_two_copies_in_one_batch_make_one_delivery_and_one_confirmation(bench: Bench) -> None:
    await bench.record(accepted(), accepted())
    assert [(event.seq, event.recipients) for event in bench.stored] == [(1, ["bob"]), (1, [])]


async def test_a_missing_msg_time_becomes_the_time_of_receipt_in_record_and_delivery(bench: Bench) -> None:
    await bench.record(accepted(msg_time=None))
    assert bench.archive.recorded[0].msg_time == str(NOW - 5)
    assert bench.stored[0].envelope.msg_time == str(NOW - 5)


@pytest.mark.parametrize("msg_type", sorted(set(CLIENT_TYPES) - DIRECT_TYPES))
async def test_a_type_without_effect_yet_is_answered_and_not_stored(bench: Bench, msg_type: MsgType) -> None:
    assert await bench.record(accepted(msg_type=msg_type)) == [None]
    (event,) = bench.rejected
    assert (event.code, event.msg_type, event.field) == (ErrorCode.UNAVAILABLE, msg_type, "msg_type")
    assert msg_type in event.detail
    assert not bench.archive.recorded


async def test_one_question_per_batch_names_senders_and_receivers_of_new_conversations_only(bench: Bench) -> None:
    bench.archive.conversations.add("u:alice:bob")
    await bench.record(accepted("m1"), accepted("m2", msg_to="carol"), accepted("m3", msg_to="dave"))
    assert bench.directory.questions == [({"alice"}, {"carol", "dave"})]


async def test_a_known_conversation_asks_nobody(bench: Bench) -> None:
    bench.archive.conversations.add("u:alice:bob")
    bench.directory.users = None
    await bench.record(accepted())
    assert [event.recipients for event in bench.stored] == [["bob"]]
    assert not bench.directory.questions


async def test_a_first_message_to_nobody_is_refused_and_its_neighbours_are_stored(bench: Bench) -> None:
    await bench.record(accepted("m1"), accepted("m2", msg_to="nobody"), accepted("m3"))
    assert [event.envelope.msg_id for event in bench.stored] == ["m1", "m3"]
    (event,) = bench.rejected
    assert (event.code, event.field, event.msg_id) == (ErrorCode.USER_UNKNOWN, "to", "m2")
    assert event.after_seq == 1
    assert "u:alice:nobody" not in bench.archive.conversations
    assert bench.counters.codes == [ErrorCode.USER_UNKNOWN]


async def test_without_a_directory_only_first_messages_are_refused(bench: Bench) -> None:
    bench.archive.conversations.add("u:alice:bob")
    bench.directory.users = None
    await bench.record(accepted("m1"), accepted("m2", msg_to="carol"))
    assert [event.envelope.msg_id for event in bench.stored] == ["m1"]
    assert [(event.code, event.msg_id) for event in bench.rejected] == [(ErrorCode.UNAVAILABLE, "m2")]


async def test_what_the_database_refuses_is_reported_and_published_nowhere(bench: Bench) -> None:
    bench.archive.bad.add("m2")
    assert await bench.record(accepted("m1"), accepted("m2"), accepted("m3")) == [None, "no room", None]
    assert [event.envelope.msg_id for event in bench.stored] == ["m1", "m3"]
    assert not bench.rejected


async def test_the_published_seq_known_so_far_is_noted_with_each_batch(bench: Bench) -> None:
    await bench.record(accepted("m1"))
    await bench.record(accepted("m2"))
    assert bench.archive.noted == [0, 1]


async def test_files_of_a_message_are_kept_for_the_question_who_shared_them(bench: Bench) -> None:
    await bench.record(accepted(msg_type=MsgType.IMAGE, body=[{"file_id": "f1"}, {"file_id": "f2"}, {"file_id": "f1"}]))
    assert bench.archive.recorded[0].file_ids == ["f1", "f2"]


@pytest.mark.parametrize(
    ("message", "flaw"),
    [
        (accepted(), None),
        (accepted(msg_type=MsgType.GROUP_TEXT, msg_to=None), None),
        (accepted(msg_from="mallory"), "another sender"),
        (accepted(msg_to="Bob"), "no user id"),
        (accepted(msg_to="b\x00b"), "no user id"),
        (accepted(body=[]), "body is empty"),
        (accepted(body=[{"text": ""}]), "text is empty"),
        (accepted(msg_type=MsgType.IMAGE, body=[{}]), "file_id is empty"),
        (accepted(msg_to=None), "neither a receiver nor a session"),
    ],
)
def test_what_no_bridge_accepts_has_a_flaw(message: AcceptedMessage, flaw: str | None) -> None:
    found = flaw_of(message)
    assert found is None if flaw is None else flaw in (found or "")
