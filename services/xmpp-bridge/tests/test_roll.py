"""To whom a live delivery goes, and what is noted of people's mailboxes when their devices come and go."""

import pytest
from tlim_protocol.mailboxes import MailboxNote
from xmpp_bridge.attendance import MAX_SESSIONS
from xmpp_bridge.component import ComponentDown
from xmpp_bridge.presences import Came, Gone, Hello, Missed, Stale
from xmpp_bridge.roll import Roll


class Desk:
    """A roll, with what it asks for: catch-ups, each with its pause, and notes."""

    def __init__(self) -> None:
        self.begun: list[tuple[str, float]] = []
        self.notes: list[MailboxNote] = []
        self.unsent_from = 2**62
        self.roll = Roll(
            lambda user_id, pause_s: self.begun.append((user_id, pause_s)),
            self.notes.append,
            lambda seq: min(seq, self.unsent_from - 1),
        )
        self.roll.hear(Hello())

    def with_live_bob(self, up_to: int = 10) -> "Desk":
        self.roll.settle({})
        self.roll.hear(Came("bob", "phone"))
        self.catch_up(up_to)
        self.notes.clear()
        self.begun.clear()
        return self

    def send_again(self, seq: int) -> None:
        """Begin a catch-up, which goes on."""
        person = self.roll.catching_up("bob")
        assert person is not None
        person.sent = seq

    def catch_up(self, up_to: int) -> bool:
        person = self.roll.catching_up("bob")
        assert person is not None
        person.sent = up_to
        is_live = self.roll.go_live("bob", person, up_to)
        self.roll.note_live("bob", person)
        return is_live


@pytest.fixture
def desk() -> Desk:
    return Desk()


def note(**fields: object) -> MailboxNote:
    return MailboxNote.model_validate({"user_id": "bob", **fields})


def test_nothing_is_delivered_before_the_server_has_said_who_is_there(desk: Desk) -> None:
    with pytest.raises(ComponentDown):
        desk.roll.is_due("bob", 1)


def test_without_our_module_everything_goes_to_everybody() -> None:
    roll = Roll(lambda _user_id, _pause_s: None, lambda _note: None)
    roll.settle({})
    assert roll.is_due("bob", 1)


def test_without_our_module_a_client_that_speaks_like_it_costs_nothing() -> None:
    begun, notes = list[str](), list[MailboxNote]()
    roll = Roll(lambda user_id, _pause_s: begun.append(user_id), notes.append)
    roll.settle({})
    for number in range(3):
        roll.hear(Came("bob", f"s{number}"))
        roll.hear(Missed("bob", 7))
    assert (begun, notes, roll.present) == ([], [], 0)


def test_nothing_goes_to_somebody_who_is_away_or_has_not_caught_up(desk: Desk) -> None:
    desk.roll.settle({})
    assert not desk.roll.is_due("bob", 1)
    desk.roll.hear(Came("bob", "phone"))
    assert not desk.roll.is_due("bob", 2)
    assert desk.begun == [("bob", 0)]
    assert desk.catch_up(2)
    assert not desk.roll.is_due("bob", 2), "the catch-up had it"
    assert desk.roll.is_due("bob", 3)
    assert desk.notes == [note(sessions=["phone"], is_new=True)]


def test_who_was_skipped_behind_the_last_page_is_not_live_yet(desk: Desk) -> None:
    desk.roll.settle({})
    desk.roll.hear(Came("bob", "phone"))
    assert not desk.roll.is_due("bob", 11)
    assert not desk.catch_up(10)
    assert not desk.roll.is_due("bob", 12)
    assert not desk.catch_up(11)
    assert desk.catch_up(12)


def test_a_catch_up_of_somebody_who_has_left_and_come_again_is_over(desk: Desk) -> None:
    desk.roll.settle({})
    desk.roll.hear(Came("bob", "phone"))
    person = desk.roll.catching_up("bob")
    assert person is not None
    desk.roll.hear(Gone("bob", "phone", None))
    desk.roll.hear(Came("bob", "phone again"))
    assert not desk.roll.is_waiting("bob", person)
    assert not desk.roll.go_live("bob", person, 10)
    assert desk.begun == [("bob", 0), ("bob", 0)]


def test_the_last_device_that_leaves_says_what_the_person_has(desk: Desk) -> None:
    desk.with_live_bob()
    desk.roll.hear(Gone("bob", "phone", 15))
    assert desk.notes == [note(taken=15)]
    assert not desk.roll.is_due("bob", 16)


def test_a_device_that_broke_off_says_nothing(desk: Desk) -> None:
    desk.with_live_bob()
    desk.roll.hear(Gone("bob", "phone", None))
    assert desk.notes == [note()]


def test_a_second_device_brings_no_second_catch_up(desk: Desk) -> None:
    desk.with_live_bob()
    desk.roll.hear(Came("bob", "laptop"))
    desk.roll.hear(Came("bob", "laptop"))
    assert (desk.begun, desk.notes) == ([], [])


def test_what_the_first_device_had_not_confirmed_is_sent_to_the_one_that_came_later(desk: Desk) -> None:
    desk.with_live_bob(up_to=10)
    assert desk.roll.is_due("bob", 11)
    desk.roll.hear(Came("bob", "laptop"))
    desk.roll.hear(Gone("bob", "phone", 10))
    assert desk.notes == [note(taken=10)]
    assert desk.begun == [("bob", 0)]
    assert not desk.roll.is_due("bob", 12)


def test_what_the_first_device_lost_is_sent_to_the_one_that_came_later_if_nobody_knows_how_much_it_was(
    desk: Desk,
) -> None:
    desk.with_live_bob(up_to=10)
    assert desk.roll.is_due("bob", 11)
    desk.roll.hear(Came("bob", "laptop"))
    desk.roll.hear(Gone("bob", "phone", None))
    assert desk.notes == [note()]
    assert desk.begun == [("bob", 0)]


def test_a_device_that_comes_while_the_other_is_without_a_network_gets_what_that_has_not_confirmed(desk: Desk) -> None:
    desk.with_live_bob(up_to=10)
    assert desk.roll.is_due("bob", 11)
    desk.roll.hear(Stale("bob", "phone", 10))
    desk.roll.hear(Came("bob", "laptop"))
    assert desk.notes[-1] == note(taken=10)
    assert desk.begun == [("bob", 0)]


def test_a_device_beside_one_that_loses_its_network_gets_what_that_has_not_confirmed_only_once(desk: Desk) -> None:
    desk.with_live_bob(up_to=10)
    assert desk.roll.is_due("bob", 11)
    desk.roll.hear(Came("bob", "laptop"))
    desk.roll.hear(Stale("bob", "phone", 10))
    assert desk.notes == [note(taken=10)]
    assert desk.begun == [("bob", 0)]
    assert desk.catch_up(11)
    desk.roll.hear(Came("bob", "phone"))
    desk.roll.hear(Stale("bob", "phone", 10))
    assert desk.begun == [("bob", 0)]


def test_a_device_that_came_amid_a_catch_up_gets_all_of_it_when_the_first_device_leaves(desk: Desk) -> None:
    desk.roll.settle({})
    desk.roll.hear(Came("bob", "phone"))
    person = desk.roll.catching_up("bob")
    assert person is not None
    person.sent = 5
    desk.roll.hear(Came("bob", "laptop"))
    desk.roll.hear(Gone("bob", "phone", None))
    assert desk.begun == [("bob", 0), ("bob", 0)]
    assert not desk.roll.go_live("bob", person, 10)


def test_who_is_there_after_a_restart_only_in_a_new_session_and_one_without_a_network_catches_up(desk: Desk) -> None:
    desk.roll.hear(Came("bob", "phone"))
    desk.roll.hear(Stale("bob", "phone", 10))
    desk.roll.hear(Came("bob", "laptop"))
    desk.roll.settle({"bob": ["phone"]})
    assert desk.notes == [note()]
    assert desk.begun == [("bob", 0)]


def test_a_device_that_came_during_a_restart_gets_what_the_older_one_has_not_confirmed(desk: Desk) -> None:
    desk.roll.hear(Came("bob", "phone"))
    desk.roll.hear(Came("bob", "laptop"))
    desk.roll.settle({"bob": ["phone"]})
    desk.roll.hear(Stale("bob", "phone", 243))
    assert desk.notes[-1] == note(taken=243)
    assert desk.begun == [("bob", 0)]


@pytest.mark.parametrize(("confirmed", "taken"), [(10, 20), (None, None)])
def test_a_later_device_speaks_for_the_person_only_when_the_first_has_confirmed_what_it_lacks(
    desk: Desk, confirmed: int | None, taken: int | None
) -> None:
    desk.with_live_bob(up_to=10)
    desk.roll.hear(Came("bob", "laptop"))
    desk.roll.hear(Gone("bob", "phone", confirmed))
    desk.roll.hear(Gone("bob", "laptop", 20))
    assert desk.notes[-1] == note(taken=taken)


def test_a_device_that_the_server_moved_a_message_to_does_not_speak_for_what_comes_before(desk: Desk) -> None:
    desk.roll.settle({})
    desk.roll.hear(Came("bob", "phone"))
    desk.roll.hear(Gone("bob", "phone", 50))
    assert desk.notes == []


def test_a_device_without_a_network_is_noted_and_still_gets_what_comes(desk: Desk) -> None:
    desk.with_live_bob()
    desk.roll.hear(Stale("bob", "phone", 12))
    assert desk.notes == [note(sessions=["phone"], is_stale=True, taken=12)]
    assert desk.roll.is_due("bob", 13)
    desk.roll.hear(Came("bob", "phone"))
    assert desk.notes[1:] == [note(sessions=["phone"], is_new=True)]
    assert desk.begun == []


def test_a_message_that_reached_nobody_is_sent_again_after_a_pause_that_grows(desk: Desk) -> None:
    desk.with_live_bob()
    desk.roll.hear(Missed("bob", 30))
    assert desk.notes == [note(at_most=29)]
    assert not desk.roll.is_due("bob", 31)
    desk.send_again(30)
    desk.roll.hear(Missed("bob", 30))
    (_, first), (_, second) = desk.begun
    assert 0 < first < second


def test_many_that_were_missed_at_once_make_the_pause_no_longer_than_one(desk: Desk) -> None:
    """A node of the server that hangs for a moment misses many."""
    desk.with_live_bob()
    for seq in range(30, 50):
        desk.roll.hear(Missed("bob", seq))
    assert {pause_s for _, pause_s in desk.begun} == {desk.begun[0][1]}


def test_the_pause_is_short_again_when_a_catch_up_has_reached_a_session(desk: Desk) -> None:
    desk.with_live_bob()
    for seq in (30, 31, 32):
        desk.roll.hear(Missed("bob", seq))
        desk.send_again(seq)
    assert desk.catch_up(40)
    desk.roll.hear(Missed("bob", 41))
    assert desk.begun[-1] == desk.begun[0] != desk.begun[-2]


def test_a_message_that_reached_nobody_lowers_the_number_of_somebody_who_has_left(desk: Desk) -> None:
    desk.with_live_bob()
    desk.roll.hear(Gone("bob", "phone", 40))
    desk.roll.hear(Missed("bob", 30))
    assert desk.notes == [note(taken=40), note(at_most=29)]
    assert desk.begun == []


def test_who_is_still_there_after_a_restart_goes_on_and_the_others_catch_up(desk: Desk) -> None:
    desk.roll.hear(Came("bob", "phone"))
    desk.roll.hear(Came("eve", "new"))
    desk.roll.settle({"bob": ["phone", "lost"], "eve": ["old"], "joe": ["away"]})
    assert desk.begun == [("eve", 0)]
    assert desk.roll.is_due("bob", 1)
    assert not desk.roll.is_due("eve", 1)
    assert desk.notes == [
        note(sessions=["phone"]),
        MailboxNote(user_id="eve"),
        MailboxNote(user_id="joe"),
    ]


def test_a_device_that_came_during_a_restart_does_not_speak_for_the_person(desk: Desk) -> None:
    desk.roll.hear(Came("bob", "phone"))
    desk.roll.hear(Came("bob", "laptop"))
    desk.roll.settle({"bob": ["phone"]})
    assert desk.notes == [note(sessions=["phone"])]
    desk.roll.hear(Gone("bob", "phone", None))
    desk.roll.hear(Gone("bob", "laptop", 99))
    assert desk.notes[-1] == note()


def test_a_device_without_a_network_still_gets_a_recall_after_a_restart(desk: Desk) -> None:
    desk.roll.hear(Stale("bob", "phone", 12))
    desk.roll.settle({"bob": ["phone"]})
    assert desk.roll.is_due("bob", 13)
    assert desk.begun == []
    desk.roll.hear(Came("bob", "phone"))
    assert desk.notes[-1] == note(sessions=["phone"], is_new=True)


def test_a_device_whose_catch_up_had_not_ended_before_a_restart_catches_up_when_it_has_a_network(desk: Desk) -> None:
    desk.roll.hear(Stale("bob", "phone", 12))
    desk.roll.settle({})
    assert desk.begun == []
    assert not desk.roll.is_due("bob", 13)
    desk.roll.hear(Came("bob", "phone"))
    assert desk.begun == [("bob", 0)]


def test_the_sessions_of_one_person_have_a_bound(desk: Desk) -> None:
    desk.with_live_bob()
    for number in range(2 * MAX_SESSIONS):
        desk.roll.hear(Came("bob", f"device {number}"))
    person = desk.roll._people["bob"]
    assert len(person.sessions) == MAX_SESSIONS


def test_who_comes_while_a_repetition_waits_is_served_at_once(desk: Desk) -> None:
    """Another session is on a node of the server that hangs: what was sent there is to be repeated ever later."""
    desk.with_live_bob()
    for seq in (30, 31, 32):
        desk.roll.hear(Missed("bob", seq))
        desk.send_again(seq)
    desk.begun.clear()
    desk.roll.hear(Came("bob", "laptop"))
    assert desk.begun == [("bob", 0)]
