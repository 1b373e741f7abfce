"""A bridge that takes over a shard knows who is there, as if it had had the shard all the time."""

from hypothesis import given
from hypothesis import strategies as st
from tlim_protocol.identity import DELIVERY_SHARDS, delivery_shard
from tlim_protocol.mailboxes import MailboxNote
from xmpp_bridge.attendance import MAX_SESSIONS, MISSED_WITHIN_S, Attendance
from xmpp_bridge.presences import Came, Gone, Hello, Missed, Sign, Stale
from xmpp_bridge.roll import Roll

PEOPLE = ["ann", "bob", "cem", "dan", "eve"]

people, sessions = st.sampled_from(PEOPLE), st.sampled_from(["phone", "laptop", "tablet"])
confirmed = st.none() | st.integers(1, 50)
signs = st.one_of(
    st.just(Hello()),
    st.builds(Came, people, sessions),
    st.builds(Stale, people, sessions, confirmed),
    st.builds(Gone, people, sessions, confirmed),
)


class Desk:
    """A roll of one shard, and what it asks for."""

    def __init__(self, shard: int) -> None:
        self.shard = shard
        self.begun: set[str] = set()
        self.notes: list[MailboxNote] = []
        self.roll = Roll(lambda user_id, _pause: self.begun.add(user_id), self.notes.append)

    def hear(self, *heard: Sign) -> None:
        for sign in heard:
            if isinstance(sign, Hello) or delivery_shard(sign.user_id) == self.shard:
                self.roll.hear(sign)


@given(st.lists(signs), st.dictionaries(people, st.lists(sessions, min_size=1, unique=True)), st.lists(signs))
def test_a_roll_that_is_filled_from_it_is_like_one_that_heard_everything(
    before: list[Sign], live: dict[str, list[str]], after: list[Sign]
) -> None:
    attendance = Attendance()
    for sign in before:
        attendance.hear(sign)
    for shard in range(DELIVERY_SHARDS):
        filled, heard = Desk(shard), Desk(shard)
        heard.hear(*before)
        filled.hear(*attendance.of(shard))
        there = {user_id: known for user_id, known in live.items() if delivery_shard(user_id) == shard}
        for desk in (filled, heard):
            desk.roll.settle(there)
            desk.hear(*after)
        assert filled.roll._people == heard.roll._people
        assert filled.roll.is_kept == heard.roll.is_kept
        assert filled.notes == heard.notes
        assert filled.begun == heard.begun


def test_what_reached_nobody_lately_is_remembered_for_a_while() -> None:
    now = 0.0
    attendance = Attendance(lambda: now)
    attendance.hear(Missed("bob", 7))
    assert attendance.missed(delivery_shard("bob")) == [Missed("bob", 7)]
    assert attendance.missed((delivery_shard("bob") + 1) % DELIVERY_SHARDS) == []
    now = MISSED_WITHIN_S - 1
    attendance.hear(Missed("ann", 5))
    now = 2 * MISSED_WITHIN_S - 2
    assert attendance.missed(delivery_shard("ann")) == [Missed("ann", 5)]
    now = 4 * MISSED_WITHIN_S
    assert attendance.missed(delivery_shard("bob")) == attendance.missed(delivery_shard("ann")) == []


def test_of_all_that_reached_nobody_the_oldest_is_remembered_for_each_person() -> None:
    now = 0.0
    attendance = Attendance(lambda: now)
    for seq in range(100, 0, -1):
        attendance.hear(Missed("bob", seq))
        now += MISSED_WITHIN_S / 80
    assert attendance.missed(delivery_shard("bob")) == [Missed("bob", 1)]


def test_the_sessions_of_one_person_have_a_bound() -> None:
    attendance = Attendance()
    attendance.hear(Hello())
    for number in range(2 * MAX_SESSIONS):
        attendance.hear(Came("bob", f"device {number}"))
    assert len(attendance.of(delivery_shard("bob"))) == 1 + MAX_SESSIONS


def test_a_lost_connection_forgets_everybody_but_not_what_reached_nobody() -> None:
    attendance = Attendance()
    attendance.hear(Hello())
    attendance.hear(Came("bob", "phone"))
    attendance.hear(Missed("bob", 7))
    attendance.clear()
    shard = delivery_shard("bob")
    assert (attendance.of(shard), attendance.missed(shard), attendance.present) == ([], [Missed("bob", 7)], 0)
