"""Who has read is told to everybody in small groups; in large ones to the authors, gathered per message."""

from typing import Any

import pytest
from message_store import gathering
from message_store.gathering import MAX_ELEMENTS, MAX_NAMED, gather
from message_store.models import Audience
from message_store.publication import delivery_of
from message_store.values import DeliveredRow, PendingRead
from tlim_protocol.registry import MsgType
from tlim_runtime.outages import BrokerUnavailable

OTHERS = ["bob", "carol", "dave", "erin", "frank"]
LARGE = ["alice", *OTHERS]  # one more than conftest's READ_TO_ALL


def element(msg_id: str, *readers: str, count: int | None = None) -> dict[str, Any]:
    return {
        "session_id": "s1", "msg_id": msg_id, "readers": [{"user_id": reader} for reader in readers],
        "readers_count": len(readers) if count is None else count,
    }  # fmt: skip


@pytest.fixture
def read(report: Any) -> Any:
    def by(sender: str, *names: str, session_id: str | None = "s1") -> Any:
        return report(f"r {sender} {names}", *names, sender=sender, msg_type=MsgType.READ, session_id=session_id)

    return by


async def test_up_to_a_number_of_members_all_others_hear_at_once_who_has_read(
    bench: Any, session: Any, to_group: Any, read: Any
) -> None:
    await bench.record(session(1, *LARGE[:-1]), to_group("m1"))
    assert await bench.outcome(read("bob", "m1")) == [["alice", "carol", "dave", "erin"]]
    assert not bench.archive.untold


async def test_beyond_that_only_the_author_hears_it_once_for_all_readers(
    bench: Any, session: Any, to_group: Any, read: Any
) -> None:
    await bench.record(session(1, *LARGE), to_group("m1"), to_group("m2"))
    reads = [read("bob", "m1", "m2"), read("carol", "m1"), read("dave", "m1")]
    assert await bench.outcome(*reads) == [[], [], []]
    assert [event.is_news for event in bench.stored[-3:]] == [True] * 3  # the readers' other devices hear of it
    assert {row.audience for row in bench.archive.rows[-3:]} == {Audience.NOBODY}

    await bench.gathering.tell()

    event, row = bench.stored[-1], bench.archive.rows[-1]
    assert event.envelope.body == [element("m1", "bob", "carol", "dave"), element("m2", "bob")]
    assert (event.recipients, event.envelope.msg_from, event.envelope.msg_type) == (["alice"], "bob", MsgType.READ)
    assert (event.tells_sender, event.reply_to, event.seq) == (False, None, row.seq)
    assert (row.sender, row.recipient, row.audience, row.is_chat) == ("", "alice", Audience.RECIPIENT, False)
    assert event == delivery_of(DeliveredRow(row, is_recalled=False, recipients=["alice"]))


async def test_each_author_hears_of_their_own_messages_and_nobody_hears_twice(
    bench: Any, session: Any, to_group: Any, read: Any
) -> None:
    await bench.record(session(1, *LARGE), to_group("m1"), to_group("m2", "bob"))
    await bench.record(read("carol", "m1", "m2"), read("carol", "m2", "m1", "m1"))
    await bench.gathering.tell()
    told = {tuple(event.recipients): event.envelope.body for event in bench.stored[-2:]}
    assert told == {("alice",): [element("m1", "carol")], ("bob",): [element("m2", "carol")]}
    before = len(bench.publication.events)
    await bench.record(read("carol", "m1"))
    await bench.gathering.tell()
    assert len(bench.publication.events) == before + 1  # only the confirmation


async def test_received_goes_to_the_author_at_once_also_in_large_groups(
    bench: Any, session: Any, to_group: Any, report: Any
) -> None:
    await bench.record(session(1, *LARGE), to_group("m1"))
    assert await bench.outcome(report("r1", "m1", session_id="s1")) == [["alice"]]


async def test_an_author_who_has_left_hears_nothing(bench: Any, session: Any, to_group: Any, read: Any) -> None:
    await bench.record(session(1, *LARGE, "grace"), to_group("m1"), session(2, *OTHERS, "grace"), read("bob", "m1"))
    assert not bench.archive.untold


async def test_what_could_not_be_published_is_made_up_for_with_the_next_call(
    bench: Any, session: Any, to_group: Any, read: Any
) -> None:
    await bench.record(session(1, *LARGE), to_group("m1"), read("bob", "m1"))
    bench.publication.is_broken = True
    with pytest.raises(BrokerUnavailable):
        await bench.gathering.tell()
    bench.publication.is_broken = False
    assert bench.archive.rows[-1].recipient == "alice"  # committed: `restore` publishes it from the table
    await bench.gathering.tell()
    await bench.gathering.tell()
    assert bench.publication.restored == 2  # at its start, and after the failure


async def test_a_call_tells_once_whatever_is_read_meanwhile(
    bench: Any, session: Any, to_group: Any, read: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    await bench.record(session(1, *LARGE), to_group("m1"), read("bob", "m1"))
    publish = bench.publication.publish

    async def published_late(deliveries: Any) -> None:
        await publish(deliveries)
        bench.archive.untold += more[:1]
        del more[:1]

    more = bench.archive.untold * 3
    monkeypatch.setattr(bench.publication, "publish", published_late)
    before = len(bench.stored)
    assert not await bench.gathering.tell()
    assert len(bench.stored) == before + 1, "each author hears at most once a second"


async def test_a_call_that_could_not_tell_all_asks_for_another_one(
    bench: Any, session: Any, to_group: Any, read: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gathering, "MAX_TAKEN", 2)
    await bench.record(session(1, *LARGE), to_group("m1"), *(read(reader, "m1") for reader in OTHERS))
    assert [await bench.gathering.tell() for _ in range(4)] == [True, True, False, False]
    assert [len(event.envelope.body[0]["readers"]) for event in bench.stored[-3:]] == [2, 2, 1]


def test_a_receipt_of_very_many_names_some_readers_and_counts_all() -> None:
    reads = [PendingRead("s1", "alice", msg_id, f"user{number}") for msg_id in ("m1", "m2") for number in range(500)]
    (told,) = gather(reads)
    first, second = told.body
    assert (len(first["readers"]), first["readers_count"]) == (MAX_NAMED, 500)
    assert (second["readers"], second["readers_count"]) == ([], 500)


def test_very_many_messages_are_told_in_several_receipts_that_each_name_a_reader() -> None:
    reads = [PendingRead("s1", "alice", f"m{number}", "bob") for number in range(2 * MAX_ELEMENTS + 1)]
    told = gather(reads)
    assert [len(one.body) for one in told] == [MAX_ELEMENTS, MAX_ELEMENTS, 1]
    assert all(one.body[0]["readers"] == [{"user_id": "bob"}] for one in told)
