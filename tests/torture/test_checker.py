"""The checker finds what is wrong in forged books, and nothing in honest ones."""

from dataclasses import replace

import pytest

from tests.torture.book import Book, Got, Heard, Item, Kind, Reading, Rename, Sent, between
from tests.torture.checker import IN_FLIGHT_S, RECEIPTS, Checker

PEOPLE = ("ann", "bob", "cai")
DIRECT, GROUP = between("ann", "bob"), "a-group"
MEMBERS = frozenset(PEOPLE)


def text(msg_id: str, seq: int, conversation: str = DIRECT) -> Item:
    return Item(msg_id, "ann", Kind.TEXT, conversation, seq, f"text of {msg_id}")


NOTICE = Item("n1", "ann", Kind.NOTICE, GROUP, 1)
M1, M2, M3, GONE = text("m1", 2), text("m2", 3, GROUP), text("m3", 4), text("m4", 5)
RECEIPT = Item("r1", "bob", Kind.READ, DIRECT, 6, about=("m1",))
RECALL = Item("x1", "ann", Kind.RECALL, DIRECT, 7, about=("m4",))
LAST = text("m5", 8)
TOMBSTONE = replace(GONE, text="", recalled=True)
LOG = (NOTICE, M1, M2, M3, TOMBSTONE, RECEIPT, RECALL, LAST)


def seen_by(user_id: str) -> list[Item]:
    return [item for item in LOG if item.conversation == GROUP or user_id in item.conversation.split("+")]


class Forged:
    """The books of a run in which all went well, which a test then changes."""

    def __init__(self) -> None:
        self.book = book = Book()
        for item in (M1, M2, M3, GONE, RECEIPT, RECALL, LAST):
            receivers = MEMBERS if item.conversation == GROUP else frozenset({"ann", "bob"})
            sent = Sent(replace(item, seq=None), receivers - {item.sender}, "", [item.seq or 0], float(item.seq or 0))
            book.sent[item.msg_id] = sent
        for user_id in PEOPLE:
            log = seen_by(user_id)
            heard = book.device(user_id, f"{user_id}#1", 0.0)
            for item in log:
                came = GONE if item is TOMBSTONE else item
                if item.sender != user_id or item.kind is Kind.NOTICE:
                    heard.messages.append(Got(came, float(came.seq or 0)))
            heard.marks.append((0.0, 0))
            chats = {name: [one for one in log if one.kind is Kind.TEXT and one.conversation == name]
                     for name in {one.conversation for one in log}}  # fmt: skip
            # Bob has read up to m1, and has m3 and the last message before him.
            unread = {DIRECT: 2 if user_id == "bob" else 0, GROUP: 0 if user_id == "ann" else 1}
            book.readings[user_id] = Reading(log, chats, unread)

    @property
    def phone(self) -> Heard:
        """The device of Bob."""
        return next(self.book.devices_of("bob"))

    @property
    def bob(self) -> Reading:
        return self.book.readings["bob"]

    def forget(self, item: Item, *users: str) -> None:
        """Take a message out of what people read."""
        for user in users:
            reading = self.book.readings[user]
            reading.sync = [one for one in reading.sync if one.msg_id != item.msg_id]
            for name, items in reading.history.items():
                reading.history[name] = [one for one in items if one.msg_id != item.msg_id]

    def put(self, *items: Item, at: float = 100.0, delayed: bool = False) -> None:
        """Let messages come to Bob's phone."""
        self.phone.messages += [Got(item, at, delayed) for item in items]

    def take(self, item: Item) -> None:
        """Let a message not come to Bob's phone."""
        self.phone.messages = [got for got in self.phone.messages if got.item.msg_id != item.msg_id]

    def found(self) -> str:
        return "\n".join(map(str, Checker(self.book).judge()))


@pytest.fixture
def forged() -> Forged:
    return Forged()


def test_a_book_in_which_all_went_well_is_not_blamed(forged: Forged) -> None:
    assert forged.found() == ""


def test_a_message_that_never_came_is_found_with_its_neighbours(forged: Forged) -> None:
    forged.take(M3)

    found = forged.found()

    assert "bob: text m3 seq 4 never came over XMPP" in found
    assert "2 text came 1x" in found
    assert "4 text came 0x" in found


@pytest.mark.parametrize("item", [NOTICE, RECEIPT, RECALL], ids=lambda item: item.kind)
def test_a_notice_a_receipt_and_a_recall_that_never_came_are_found(forged: Forged, item: Item) -> None:
    for heard in forged.book.devices:
        heard.messages = [got for got in heard.messages if got.item.msg_id != item.msg_id]

    assert f"{item.kind} {item.msg_id} seq {item.seq} never came over XMPP" in forged.found()


def test_a_message_that_came_twice_is_counted_and_allowed(forged: Forged) -> None:
    forged.put(M1)
    forged.book.device("bob", "bob#2", 50.0).messages.append(Got(M3, 60.0))

    assert forged.found() == ""
    again = Checker(forged.book).repetitions()
    assert (again["same device"], again["other device"]) == (1, 1)


def test_a_message_that_is_stored_twice_is_found(forged: Forged) -> None:
    again = replace(M1, seq=9)
    forged.bob.sync.append(again)
    forged.bob.history[DIRECT].append(again)

    found = forged.found()

    assert "m1 was stored several times: seqs [2, 9]" in found
    assert "sync: m1 is in it twice" in found


def test_a_resend_that_is_acknowledged_under_another_seq_is_found(forged: Forged) -> None:
    forged.book.sent["m1"].seqs.append(9)

    assert "m1 was stored several times: seqs [2, 9]" in forged.found()


def test_a_seq_that_two_messages_have_is_found(forged: Forged) -> None:
    forged.book.sent["m3"].seqs = [2]

    assert "seq 2 belongs to 2 messages" in forged.found()


def test_messages_that_came_in_another_order_are_found(forged: Forged) -> None:
    messages = forged.phone.messages
    one, other = (next(i for i, got in enumerate(messages) if got.item is item) for item in (M1, M3))
    messages[one], messages[other] = messages[other], messages[one]

    assert "bob#1: text seq 2 first came after seq 4" in forged.found()


def test_another_order_between_conversations_is_allowed(forged: Forged) -> None:
    messages = forged.phone.messages
    one, other = (next(i for i, got in enumerate(messages) if got.item is item) for item in (M1, M2))
    messages[one], messages[other] = messages[other], messages[one]

    assert forged.found() == ""


def test_what_another_device_had_not_confirmed_may_come_late_only_after_that_device_has_gone(forged: Forged) -> None:
    second = forged.book.device("bob", "bob#2", 50.0)
    second.messages += [Got(M3, 60.0), Got(M1, 70.0, delayed=True)]
    forged.take(M1)
    forged.phone.broke.append(90.0)
    assert "bob#2: text seq 2 first came after seq 4" in forged.found()

    forged.phone.broke.append(65.0)
    assert forged.found() == ""


def test_what_a_session_that_broke_off_had_not_confirmed_may_come_late_to_the_same_device(forged: Forged) -> None:
    phone = forged.book.device("bob", "bob#2", 50.0)
    forged.take(M1)
    phone.messages += [Got(M3, 60.0), Got(M1, 70.0, delayed=True)]
    assert "bob#2: text seq 2 first came after seq 4" in forged.found()

    phone.broke.append(55.0)
    assert forged.found() == ""


def test_what_another_device_has_had_may_come_late_only_with_what_was_missed(forged: Forged) -> None:
    second = forged.book.device("bob", "bob#2", 50.0)
    second.messages += [Got(M3, 60.0), Got(M1, 70.0)]
    assert "bob#2: text seq 2 first came after seq 4" in forged.found()

    second.messages[-1] = Got(M1, 70.0, delayed=True)
    assert forged.found() == ""


def test_an_acknowledged_message_that_is_not_in_the_log_is_found(forged: Forged) -> None:
    forged.take(M3)
    forged.forget(M3, *PEOPLE)
    forged.bob.unread[DIRECT] = 1

    found = forged.found()

    assert "bob: text m3 is acknowledged, and not in sync" in found
    assert "ann: text m3 is acknowledged, and not in sync" in found


def test_an_acknowledged_message_that_is_in_sync_and_not_in_history_is_found(forged: Forged) -> None:
    forged.bob.history[DIRECT].remove(M3)

    found = forged.found()

    assert "bob: text m3 is acknowledged, and not in history" in found
    assert f"history and sync of {DIRECT} differ in ['m3']" in found


def test_a_message_that_was_not_acknowledged_is_with_all_or_with_none(forged: Forged) -> None:
    forged.book.sent["m3"].seqs = []
    assert forged.found() == ""

    forged.take(M3)
    forged.forget(M3, "bob")
    forged.bob.unread[DIRECT] = 1
    assert "bob: text m3 is stored, for others read it, and not in sync" in forged.found()

    forged.forget(M3, "ann")
    assert forged.found() == ""


def test_the_text_of_a_recalled_message_in_history_is_found(forged: Forged) -> None:
    forged.bob.history[DIRECT] = [GONE if one is TOMBSTONE else one for one in forged.bob.history[DIRECT]]

    assert "m4 was recalled, and its text is shown: 'text of m4'" in forged.found()


def test_the_text_of_a_recalled_message_behind_its_recall_is_found(forged: Forged) -> None:
    forged.put(GONE)

    assert "bob#1: got the text of m4 behind its recall" in forged.found()


def test_the_text_of_a_recalled_message_on_a_device_that_came_later_is_found(forged: Forged) -> None:
    recalled_at = forged.book.sent["x1"].stored_at or 0.0
    late = forged.book.device("bob", "bob#2", recalled_at + IN_FLIGHT_S + 1)
    late.messages.append(Got(GONE, late.since + 1))

    assert "got m4, which was recalled at" in forged.found()


def test_a_recalled_message_need_not_come(forged: Forged) -> None:
    forged.take(GONE)

    assert forged.found() == ""


def test_a_message_for_others_is_found(forged: Forged) -> None:
    next(forged.book.devices_of("cai")).messages.append(Got(M1, 100.0))

    found = forged.found()

    assert "cai#1: got text m1 seq 2, which is not in sync" in found
    assert "cai#1: got text m1, which was sent otherwise, or to others" in found


def test_another_text_is_found(forged: Forged) -> None:
    forged.put(replace(M1, text="forged"))

    assert "bob#1: got text m1, which was sent otherwise, or to others" in forged.found()


def test_a_wrong_unread_count_is_found(forged: Forged) -> None:
    forged.bob.unread[DIRECT] += 1

    assert f"bob: unread of {DIRECT} is 3, and should be 2" in forged.found()


def test_receipts_may_be_left_out_only_above_the_limit(forged: Forged) -> None:
    receipts = [Item(f"a{n}", "cai", Kind.RECEIVED, GROUP, 10 + n, about=("m9",)) for n in range(RECEIPTS)]
    forged.bob.sync += receipts[:-1]
    forged.phone.marks.append((90.0, 500))
    assert "received a0 seq 10 never came over XMPP" in forged.found()

    forged.bob.sync += [receipts[-1], Item("a", "cai", Kind.RECEIVED, GROUP, 200, about=("m9",))]
    assert forged.found() == ""


def test_a_read_in_a_large_group_of_which_the_author_does_not_hear_is_found(forged: Forged) -> None:
    read = Item("g1", "bob", Kind.READ, GROUP, None, about=("m2",))
    forged.book.sent["g1"] = Sent(read, frozenset(), "ann", [9], 9.0)
    forged.bob.sync.append(replace(read, seq=9))
    forged.bob.unread[GROUP] = 0
    assert "ann: was not told that bob has read ('m2',) (g1)" in forged.found()

    gathered = Item("server", "cai", Kind.READ, GROUP, 10, about=("m2",), readers=frozenset({"bob", "cai"}))
    forged.book.readings["ann"].sync.append(gathered)
    next(forged.book.devices_of("ann")).messages.append(Got(gathered, 10.0))
    assert forged.found() == ""


def test_a_change_of_a_group_of_which_a_member_does_not_hear_is_found(forged: Forged) -> None:
    forged.book.renames.append(Rename(GROUP, "lunch", MEMBERS))

    assert "cai: was not told that a-group is called 'lunch'" in forged.found()


def test_what_was_noticed_on_the_way_is_reported(forged: Forged) -> None:
    forged.book.wrong.append("a step was not survived")

    assert forged.found() == "run: a step was not survived"
