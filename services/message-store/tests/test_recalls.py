"""The rules of recall: whose, until when, who hears of it, and once."""

import random
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from message_store.models import Audience
from message_store.plan import Plan
from message_store.values import ArrivedMessage, Known, Place, Roster, Span
from tlim_protocol.errors import ErrorCode
from tlim_protocol.events import StoredMessage
from tlim_protocol.registry import MsgType

NOW, WINDOW = 1_700_000_000_000, 120_000


@pytest.fixture(name="recall")
def recall_fixture(report: Any) -> Any:
    return lambda *names, **changes: report(*names, **{"sender": "alice", "msg_type": MsgType.RECALL, **changes})


async def test_a_recalled_message_is_taken_back_and_its_receiver_told(bench: Any, accepted: Any, recall: Any) -> None:
    await bench.record(accepted("m1"), accepted("m2"))
    assert await bench.outcome(recall("c1", "m1", "m2")) == [["bob"]]
    assert bench.archive.recalled == [1, 2]
    row = bench.archive.rows[-1]
    assert (row.is_chat, row.audience, row.recipient) == (False, Audience.RECIPIENT, "bob")


async def test_in_a_group_all_others_are_told(bench: Any, session: Any, to_group: Any, recall: Any) -> None:
    await bench.record(session(1, "alice", "bob", "carol"), to_group("m1"))
    assert await bench.outcome(recall("c1", "m1", session_id="s1")) == [["bob", "carol"]]
    assert bench.archive.rows[-1].audience is Audience.MEMBERS


@pytest.mark.parametrize("is_one_batch", [True, False])
async def test_what_is_recalled_again_is_no_news(bench: Any, accepted: Any, recall: Any, is_one_batch: bool) -> None:
    await bench.record(accepted("m1"), accepted("m2"))
    recalls = [recall("c1", "m1"), recall("c2", "m1", arrived_at=NOW + 2 * WINDOW), recall("c3", "m1", "m2")]
    outcomes = await bench.outcome(*recalls) if is_one_batch else [(await bench.outcome(one))[0] for one in recalls]
    assert outcomes == [["bob"], [], ["bob"]]
    assert [event.is_news for event in bench.stored[-3:]] == [True, False, True]
    assert bench.stored[-1].envelope.body == [{"msg_id": "m2"}]
    assert bench.archive.recalled == [1, 2]


async def test_a_message_and_its_recall_in_one_batch(bench: Any, accepted: Any, recall: Any, report: Any) -> None:
    assert await bench.outcome(accepted("m1"), recall("c1", "m1"), report("r1", "m1")) == [["bob"], ["bob"], ["alice"]]
    assert bench.archive.recalled == [1]


async def test_somebody_else_s_message_stays(bench: Any, accepted: Any, recall: Any) -> None:
    await bench.record(accepted("m1"), accepted("own", sender="bob"))
    assert await bench.outcome(recall("c1", "own", "m1", sender="bob")) == [ErrorCode.NOT_ALLOWED]
    assert not bench.archive.recalled


async def test_in_a_group_too(bench: Any, session: Any, to_group: Any, recall: Any) -> None:
    await bench.record(session(1, "alice", "bob"), to_group("m1"))
    assert await bench.outcome(
        recall("c1", "m1", sender="bob", session_id="s1"),
        recall("c2", "m1", sender="carol", session_id="s1"),
        recall("c3", "m1", session_id="s2"),
    ) == [ErrorCode.NOT_ALLOWED, ErrorCode.SESSION_UNKNOWN, ErrorCode.SESSION_UNKNOWN]


@pytest.mark.parametrize("name", ["unknown", "elsewhere", "c0", "in a group"])
async def test_a_recall_is_about_messages_of_that_conversation(
    bench: Any, accepted: Any, session: Any, to_group: Any, recall: Any, *, name: str
) -> None:
    bench.session_api.users = {"bob", "carol"}
    await bench.record(
        accepted("m0"), accepted("m1"), accepted("elsewhere", msg_to="carol"), session(1, "alice", "bob"),
        to_group("in a group"), recall("c0", "m0"),
    )  # fmt: skip
    assert await bench.outcome(recall("c1", "m1", name)) == [ErrorCode.MSG_ID_UNKNOWN]
    assert bench.archive.recalled == [1]


@pytest.mark.parametrize(
    ("waited", "outcome"), [(0, ["bob"]), (WINDOW, ["bob"]), (WINDOW + 1, ErrorCode.RECALL_TOO_LATE)]
)
async def test_the_window_is_from_storing_to_receiving_the_recall_its_limit_included(
    bench: Any, accepted: Any, recall: Any, waited: int, outcome: Any
) -> None:
    await bench.record(accepted("m1"))
    bench.now = NOW + 10 * WINDOW  # a recall that was received in time may be stored late
    assert await bench.outcome(recall("c1", "m1", arrived_at=NOW + waited, msg_time="1")) == [outcome]


async def test_one_message_too_late_keeps_them_all(bench: Any, accepted: Any, recall: Any) -> None:
    await bench.record(accepted("m1"))
    bench.now = NOW + WINDOW
    await bench.record(accepted("m2"))
    assert await bench.outcome(recall("c1", "m2", "m1", arrived_at=NOW + WINDOW + 1)) == [ErrorCode.RECALL_TOO_LATE]
    assert not bench.archive.recalled


async def test_a_recall_that_is_sent_again_is_confirmed(bench: Any, accepted: Any, recall: Any) -> None:
    await bench.record(accepted("m1"), recall("c1", "m1"))
    assert await bench.outcome(recall("c1", "m1", arrived_at=NOW + 2 * WINDOW)) == [[]]
    assert (bench.stored[-1].seq, len(bench.archive.rows)) == (2, 2)


async def test_the_clock_of_the_bridge_decides_nothing(bench: Any, accepted: Any, recall: Any) -> None:
    await bench.record(accepted())
    in_time = recall("c1", "m1", arrived_at=NOW + WINDOW, received_at=NOW + 2 * WINDOW)
    assert await bench.outcome(recall("c0", "m1", arrived_at=NOW + WINDOW + 1, received_at=NOW), in_time) == [
        ErrorCode.RECALL_TOO_LATE,
        ["bob"],
    ]


BATCHINGS = pytest.mark.parametrize("is_one_batch", [True, False])


@BATCHINGS
@pytest.mark.parametrize(
    ("after", "told"),
    [
        # the author has left, with carol, who saw the message; dave came too late to see it
        ([("alice", "dave")], ["alice", "carol"]),
        ([("alice", "carol", "dave", "bob")], ["alice", "carol", "dave"]),  # nobody has left
        ([("alice", "carol"), ("alice", "carol", "dave")], ["alice", "carol"]),
        ([("alice", "carol")], ["alice", "carol"]),
        ([("alice", "bob", "dave")], ["alice", "dave", "carol"]),  # in an open session all its members hear it
        ([("bob",), ("alice", "bob")], ["alice", "carol"]),  # came back
    ],
)
async def test_a_recall_is_told_to_all_who_can_still_read_the_message(
    bench: Any, session: Any, to_group: Any, recall: Any, *, after: Any, told: list[str], is_one_batch: bool
) -> None:
    events = [session(number, *members) for number, members in enumerate(after, start=2)]
    items = [session(1, "alice", "bob", "carol"), to_group("m1", "bob"), *events]
    command = recall("c1", "m1", sender="bob", session_id="s1")
    if is_one_batch:
        outcome = await bench.outcome(*items, command)
    else:
        await bench.record(*items)
        outcome = await bench.outcome(command)
    assert outcome[-1] == told
    assert bench.archive.recalled == [2]
    row = bench.archive.rows[-1]
    listed = [user for user, seq in bench.archive.addressees if seq == row.seq]
    members = [user for user in after[-1] if user != "bob"] if row.audience is Audience.MEMBERS else []
    assert sorted([*members, *listed]) == sorted(told)


@BATCHINGS
async def test_the_author_takes_back_what_is_in_a_deleted_session(
    bench: Any, session: Any, to_group: Any, recall: Any, is_one_batch: bool
) -> None:
    items = [session(1, "alice", "bob"), to_group("m1"), session(2, "alice", "bob", deleted=True)]
    command = recall("c1", "m1", session_id="s1")
    if is_one_batch:
        assert (await bench.outcome(*items, command))[-1] == ["bob"]
    else:
        await bench.record(*items)
        assert await bench.outcome(command, recall("c2", "m1", session_id="s1")) == [["bob"], []]
    assert bench.archive.recalled == [2]


async def test_who_has_left_takes_back_nothing_of_others(bench: Any, session: Any, to_group: Any, recall: Any) -> None:
    await bench.record(session(1, "alice", "bob"), to_group("m1"), session(2, "alice"), to_group("m2"))
    assert await bench.outcome(
        recall("c1", "m1", sender="bob", session_id="s1"), recall("c2", "m2", sender="bob", session_id="s1")
    ) == [ErrorCode.NOT_ALLOWED, ErrorCode.MSG_ID_UNKNOWN]


class CountedMembers(dict[str, int]):
    """Members of a session, and how often one of them was looked up."""

    lookups = 0

    def get(self, key: str, default: Any = None) -> Any:
        self.lookups += 1
        return super().get(key, default)


Spans = Mapping[tuple[str, str], tuple[Span, ...]]


def told_by(command: ArrivedMessage, seqs: Sequence[int], members: dict[str, int], earlier: Spans) -> list[str]:
    """Return who hears of a recall in session s1; alice wrote the messages m0, m1, … at `seqs`."""
    places = {
        ("alice", f"m{number}"): Place(
            seq, NOW, "s1", "alice", f"m{number}", MsgType.GROUP_TEXT.value, is_chat=True, is_recalled=False
        )
        for number, seq in enumerate(seqs)
    }
    known = Known(
        rosters={"s1": Roster(1, is_deleted=False, members=members)},
        places=places,
        senders={("s1", msg_id): (sender,) for sender, msg_id in places},
        earlier=earlier,
    )
    plan = Plan(known, [10_000], newest=9_999, now=NOW, recall_window=WINDOW, read_to_all=200)
    plan.run([command])
    (event,) = plan.events
    assert isinstance(event, StoredMessage)
    return event.recipients


def test_nobody_is_compared_with_every_message_of_a_recall(recall: Any) -> None:
    seqs = range(100, 400)
    members = CountedMembers(alice=1, **{f"late{number}": 5_000 for number in range(500)})
    command = recall("c1", *(f"m{number}" for number in range(len(seqs))), session_id="s1")
    assert len(told_by(command, seqs, members, {})) == 500
    assert members.lookups <= 2 * (len(seqs) + len(members))


def test_a_recall_of_many_is_told_to_whoever_can_read_one_of_them(recall: Any) -> None:
    chance = random.Random(7)  # noqa: S311 -- not for secrets
    people = [f"user{number}" for number in range(40)]
    for _ in range(50):
        seqs = chance.sample(range(1, 60), chance.randint(1, 5))
        members = {name: chance.randint(1, 60) for name in people if chance.random() < 0.5}
        earlier = {
            ("s1", name): tuple(Span(start, start + chance.randint(0, 8)) for start in chance.sample(range(60), 2))
            for name in people
            if chance.random() < 0.5
        }
        readers = {
            name
            for name in people
            if any(members.get(name, 61) <= seq for seq in seqs)
            or any(span.joined_seq <= seq <= span.left_seq for span in earlier.get(("s1", name), ()) for seq in seqs)
        }
        command = recall("c1", *(f"m{number}" for number in range(len(seqs))), session_id="s1")
        told = told_by(command, seqs, members, {**earlier, ("s1", "alice"): (Span(0, 60),)})
        assert set(told) == readers
