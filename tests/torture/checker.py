"""Judges the books of a run. It knows what clients sent and got, and what they read at the end, and nothing else."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from math import inf

from tests.torture.book import Book, Got, Heard, Item, Kind, Reading, Sent

RECEIPTS = 100
"""A catch-up brings receipts only if there are up to so many (docs/wire-protocol.md, "What was missed")."""

UNREAD = 1_000
"""An unread count goes no higher."""

IN_FLIGHT_S = 20.0
"""A message that was recalled can still be on its way to a person's devices for so long: a server may be stopped."""

AROUND = 4
"""So many neighbours of a message in its conversation are named on either side."""


@dataclass(frozen=True)
class Finding:
    """Something that is wrong. `around` are the neighbours in the conversation, if one is concerned."""

    user_id: str
    text: str
    around: str = ""

    def __str__(self) -> str:
        return f"{self.user_id}: {self.text}{f' [{self.around}]' if self.around else ''}"


class Checker:
    """One judgement on a book."""

    def __init__(self, book: Book) -> None:
        self.book = book
        self.findings: list[Finding] = [Finding("run", text) for text in book.wrong]
        self.receipts_left_out = 0

    def judge(self) -> list[Finding]:
        """Return all that is wrong."""
        self._numbers()
        for msg_id, one in self.book.sent.items():
            self._in_the_log(msg_id, one)
            self._gathered(msg_id, one)
        self._renamed()
        for user_id, reading in self.book.readings.items():
            self._reading(user_id, reading)
            self._complete(user_id, reading)
            for heard in self._devices[user_id]:
                self._only_what_is_read(heard)
                self._in_order(heard)
                self._nothing_recalled(heard)
        return self.findings

    def repetitions(self) -> Counter[str]:
        """Return how often messages came for the first time, again to the same device, and again to another device."""
        count, had = Counter[str](), defaultdict[str, set[str]](set)
        for heard in self.book.devices:
            here = set[str]()
            for got in heard.messages:
                msg_id = got.item.msg_id
                key = "same device" if msg_id in here else "other device" if msg_id in had[heard.user_id] else "first"
                count[key] += 1
                here.add(msg_id)
                had[heard.user_id].add(msg_id)
        return count

    # --- the log ----------------------------------------------------------------------------------------------------

    def _numbers(self) -> None:
        """One message has one seq, wherever it is seen, and one seq has one message."""
        seqs = defaultdict[str, set[int]](set)
        for msg_id, one in self.book.sent.items():
            seqs[msg_id].update(one.seqs)
        for item in self._seen():
            if item.seq is not None:
                seqs[item.msg_id].add(item.seq)
        owners = Counter(seq for several in seqs.values() for seq in several)
        for msg_id, several in seqs.items():
            if len(several) > 1:
                self._wrong(self._sender(msg_id), f"{msg_id} was stored several times: seqs {sorted(several)}")
        for seq, count in owners.items():
            if count > 1:
                self._wrong("run", f"seq {seq} belongs to {count} messages")

    def _seen(self) -> Iterator[Item]:
        for heard in self.book.devices:
            yield from (got.item for got in (*heard.messages, *heard.copies))
        for reading in self.book.readings.values():
            yield from reading.sync
            for history in reading.history.values():
                yield from history

    def _in_the_log(self, msg_id: str, one: Sent) -> None:
        """What was acknowledged is read by everybody concerned; what was not, by all of them or by none."""
        item = one.item
        if self._is_no_news(one):
            return
        concerned = [user for user in (item.sender, *one.receivers) if user in self._places]
        have = [user for user in concerned if msg_id in self._places[user]]
        if have and not one.seqs and item.kind in {Kind.RECALL, Kind.READ}:
            return  # nobody knows which of two reports or recalls of the same message was stored first
        if not one.seqs and not have:
            return
        why = "acknowledged" if one.seqs else "stored, for others read it"
        for user in concerned:
            if msg_id not in self._places[user]:
                self._wrong(user, f"{item.kind} {msg_id} is {why}, and not in sync", item.conversation, self._seq(one))
            elif item.kind is Kind.TEXT and msg_id not in self._histories[user].get(item.conversation, {}):
                text = f"{item.kind} {msg_id} is {why}, and not in history"
                self._wrong(user, text, item.conversation, self._seq(one))

    def _gathered(self, msg_id: str, one: Sent) -> None:
        """An acknowledged read in a large group is in a message to the author, with the name of the reader."""
        reading = self.book.readings.get(one.author)
        if reading is None or not one.seqs or self._is_no_news(one):
            return
        told = (item for item in reading.sync if item.kind is Kind.READ and one.item.sender in item.readers)
        if not any(set(one.item.about) <= set(item.about) for item in told):
            self._wrong(one.author, f"was not told that {one.item.sender} has read {one.item.about} ({msg_id})")

    def _renamed(self) -> None:
        """A confirmed change of a session is in sync of all members."""
        for rename in self.book.renames:
            for user_id in rename.members & self.book.readings.keys():
                if (rename.conversation, rename.name) not in self._names[user_id]:
                    self._wrong(user_id, f"was not told that {rename.conversation} is called {rename.name!r}")

    def _is_no_news(self, one: Sent) -> bool:
        """Whether everything that it says was said before. Then nobody is told."""
        said = {Kind.RECEIVED: (Kind.RECEIVED, Kind.READ), Kind.READ: (Kind.READ,), Kind.RECALL: (Kind.RECALL,)}
        kinds = said.get(one.item.kind, ())
        if not kinds:
            return False
        if one.item.kind.is_receipt and any(about in self._recalled_ever for about in one.item.about):
            return True  # a receipt of what is no more may come or not
        seq = self._seq(one)
        for about in one.item.about:
            for other in self._reports[about, one.item.sender]:
                same = other.item.msg_id == one.item.msg_id
                if not same and other.item.kind in kinds and not seq < self._seq(other):
                    return True
        return False

    # --- what a person reads ----------------------------------------------------------------------------------------

    def _reading(self, user_id: str, reading: Reading) -> None:
        """Sync, history and unread say the same, in order, each message once, and show nothing that was recalled."""
        self._rises(user_id, "sync", reading.sync)
        chats = defaultdict[str, list[Item]](list)
        for item in reading.sync:
            if item.kind is Kind.TEXT:
                chats[item.conversation].append(item)
        for conversation in chats.keys() | reading.history.keys():
            history = reading.history.get(conversation, [])
            self._rises(user_id, f"history of {conversation}", history)
            if history != chats[conversation]:
                differing = {item.msg_id for item in set(history) ^ set(chats[conversation])}
                self._wrong(user_id, f"history and sync of {conversation} differ in {sorted(differing)[:AROUND]}")
        for item in (*reading.sync, *(item for history in reading.history.values() for item in history)):
            self._true(user_id, item)
        for conversation, unread in self._unread(user_id, reading, chats).items():
            if reading.unread.get(conversation, 0) != unread:
                told = reading.unread.get(conversation, 0)
                self._wrong(user_id, f"unread of {conversation} is {told}, and should be {unread}")

    def _rises(self, user_id: str, where: str, items: Sequence[Item]) -> None:
        for before, after in pairwise(items):
            if not (before.seq or 0) < (after.seq or 0):
                again = "again " if before.msg_id == after.msg_id else ""
                self._wrong(user_id, f"{where}: seq {after.seq} stands {again}behind seq {before.seq}")
        twice = [msg_id for msg_id, count in Counter(item.msg_id for item in items).items() if count > 1]
        for msg_id in twice:
            self._wrong(user_id, f"{where}: {msg_id} is in it twice")

    def _true(self, user_id: str, item: Item) -> None:
        """What is read is what was sent, to this person."""
        one = self.book.sent.get(item.msg_id)
        if one is None:
            if item.kind is Kind.TEXT or item.kind is Kind.RECALL:
                self._wrong(user_id, f"reads {item.kind} {item.msg_id}, which nobody sent")
            return
        if user_id not in {*one.receivers, one.item.sender}:
            self._wrong(user_id, f"reads {item.kind} {item.msg_id}, which is for others")
        if item.msg_id in self._recalled:
            if item.text or not item.recalled:
                self._wrong(user_id, f"{item.msg_id} was recalled, and its text is shown: {item.text!r}")
        elif not item.recalled and item.text != one.item.text:
            self._wrong(user_id, f"{item.msg_id} reads {item.text!r}, and was sent as {one.item.text!r}")
        elif item.recalled and item.msg_id not in self._recalled_ever:
            self._wrong(user_id, f"{item.msg_id} is shown as recalled, and nobody recalled it")

    def _unread(self, user_id: str, reading: Reading, chats: dict[str, list[Item]]) -> dict[str, int]:
        seqs = {item.msg_id: item.seq or 0 for items in chats.values() for item in items}
        cursors = defaultdict[str, int](int)
        for item in reading.sync:
            if item.kind is Kind.READ and item.sender == user_id:
                known = [seqs.get(about, 0) for about in item.about]
                cursors[item.conversation] = max(cursors[item.conversation], *known)
        return {
            conversation: min(
                UNREAD,
                sum(
                    item.sender != user_id and not item.recalled and (item.seq or 0) > cursors[conversation]
                    for item in items
                ),
            )
            for conversation, items in chats.items()
        }

    # --- what came over XMPP ----------------------------------------------------------------------------------------

    def _complete(self, user_id: str, reading: Reading) -> None:
        """Everything that sync has from others came over XMPP, but for what was recalled, and receipts over a limit."""
        had = {got.item.msg_id for heard in self._devices[user_id] for got in heard.messages}
        marks = [seq for heard in self._devices[user_id] for _, seq in heard.marks]
        receipts = 0
        for item in reading.sync:
            receipts += item.kind.is_receipt and item.sender != user_id
            if item.msg_id in had or item.recalled or (item.sender == user_id and item.kind is not Kind.NOTICE):
                continue
            if item.kind.is_receipt and self._is_over_limit(receipts, reading, user_id, max(marks, default=0)):
                self.receipts_left_out += 1
                continue
            text = f"{item.kind} {item.msg_id} seq {item.seq} never came over XMPP"
            self._wrong(user_id, text, item.conversation, float(item.seq or 0))

    def _is_over_limit(self, place: int, reading: Reading, user_id: str, last_mark: int) -> bool:
        """Whether a catch-up may have left a receipt out: up to its end there were more than RECEIPTS."""
        before = sum(
            item.kind.is_receipt and item.sender != user_id and (item.seq or 0) <= last_mark for item in reading.sync
        )
        return place <= before and before > RECEIPTS

    def _only_what_is_read(self, heard: Heard) -> None:
        """What came is in sync, and as it was sent."""
        for got in heard.messages:
            read, item = self._places[heard.user_id].get(got.item.msg_id), got.item
            if read is None:
                self._wrong(heard.label, f"got {item.kind} {item.msg_id} seq {item.seq}, which is not in sync")
            one = self.book.sent.get(item.msg_id)
            text = item.text or (one.item.text if one and item.msg_id in self._recalled_ever else "")  # it was blanked
            if one is not None and (heard.user_id not in one.receivers or one.item.text != text):
                self._wrong(heard.label, f"got {item.kind} {item.msg_id}, which was sent otherwise, or to others")
        for got in heard.copies:
            if got.item.sender != heard.user_id:
                self._wrong(heard.label, f"got a copy of {got.item.msg_id}, which {got.item.sender} sent")

    def _in_order(self, heard: Heard) -> None:
        """In each conversation the first arrivals rise in seq."""
        highest: dict[str, int] = {}
        seen = set[str]()
        for got in heard.messages:
            key, seq = got.item.conversation, got.item.seq or 0
            if got.item.msg_id in seen:
                continue
            seen.add(got.item.msg_id)
            if seq < highest.get(key, 0) and not self._is_of_another_session(heard, got):
                text = f"{got.item.kind} seq {seq} first came after seq {highest[key]}, at {got.at:.1f} s"
                self._wrong(heard.label, text, key, float(seq))
            highest[key] = max(seq, highest.get(key, 0))

    def _is_of_another_session(self, heard: Heard, got: Got) -> bool:
        """Whether another device of the person has had it, or another session of the person had broken off before.

        That can be a session of this very device. The server keeps it for some time after the network is lost.
        """
        if not got.delayed:
            return False
        if self._first_broke[heard.user_id] <= got.at:
            return True
        had = self._firsts[heard.user_id][got.item.msg_id]
        return any(other is not heard and at <= got.at for other, at in had)

    def _nothing_recalled(self, heard: Heard) -> None:
        """A device gets no text behind its recall, and none that was recalled before the device came."""
        gone = set[str]()
        for got in heard.messages:
            if got.item.kind is Kind.RECALL:
                gone.update(got.item.about)
            elif got.item.msg_id in gone and got.item.text:
                self._wrong(heard.label, f"got the text of {got.item.msg_id} behind its recall, at {got.at:.1f} s")
            else:
                recall = self._recalled.get(got.item.msg_id)
                if recall is not None and recall + IN_FLIGHT_S < heard.since:
                    text = f"came at {heard.since:.1f} s, and got {got.item.msg_id}, which was recalled at {recall:.1f}"
                    self._wrong(heard.label, text)

    # --- what is looked up ------------------------------------------------------------------------------------------

    @cached_property
    def _first_broke(self) -> dict[str, float]:
        """When the first session of each person broke off."""
        return {
            user_id: min((at for heard in devices for at in heard.broke), default=inf)
            for user_id, devices in self._devices.items()
        }

    @cached_property
    def _firsts(self) -> defaultdict[str, defaultdict[str, list[tuple[Heard, float]]]]:
        """When each device of a person got a message first, by person and msg_id."""
        found = defaultdict[str, defaultdict[str, list[tuple[Heard, float]]]](lambda: defaultdict(list))
        for heard in self.book.devices:
            arrivals = {got.item.msg_id: got.at for got in reversed(heard.messages)}
            for msg_id, at in arrivals.items():
                found[heard.user_id][msg_id].append((heard, at))
        return found

    @cached_property
    def _devices(self) -> defaultdict[str, list[Heard]]:
        """The devices of each person. A long run has thousands, and asks for those of one person for each message."""
        found = defaultdict[str, list[Heard]](list)
        for heard in self.book.devices:
            found[heard.user_id].append(heard)
        return found

    @cached_property
    def _places(self) -> dict[str, dict[str, Item]]:
        return {user: {item.msg_id: item for item in one.sync} for user, one in self.book.readings.items()}

    @cached_property
    def _histories(self) -> dict[str, dict[str, dict[str, Item]]]:
        return {
            user: {name: {item.msg_id: item for item in items} for name, items in one.history.items()}
            for user, one in self.book.readings.items()
        }

    @cached_property
    def _names(self) -> dict[str, set[tuple[str, str]]]:
        """The names of sessions of which each person reads."""
        notices = {user: (item for item in one.sync if item.kind is Kind.NOTICE)
                   for user, one in self.book.readings.items()}  # fmt: skip
        return {user: {(item.conversation, item.text) for item in items} for user, items in notices.items()}

    @cached_property
    def _recalled(self) -> dict[str, float]:
        """When the recall of each message was acknowledged, the first one."""
        found: dict[str, float] = {}
        for one in self.book.sent.values():
            if one.item.kind is Kind.RECALL and one.stored_at is not None:
                for about in one.item.about:
                    found[about] = min(one.stored_at, found.get(about, one.stored_at))
        return found

    @cached_property
    def _recalled_ever(self) -> set[str]:
        """The messages of all recalls, acknowledged or not."""
        recalls = (one.item for one in self.book.sent.values() if one.item.kind is Kind.RECALL)
        return {about for item in recalls for about in item.about}

    @cached_property
    def _reports(self) -> dict[tuple[str, str], list[Sent]]:
        """All receipts and recalls, by the message that they name and by who sent them."""
        found = defaultdict[tuple[str, str], list[Sent]](list)
        for one in self.book.sent.values():
            for about in one.item.about:
                found[about, one.item.sender].append(one)
        return found

    def _seq(self, one: Sent) -> float:
        """Return the seq of a message; of one that was not acknowledged, what the sender reads, or infinity."""
        if one.seqs:
            return one.seqs[0]
        read = self._places.get(one.item.sender, {}).get(one.item.msg_id)
        return float("inf") if read is None or read.seq is None else read.seq

    def _sender(self, msg_id: str) -> str:
        return self.book.sent[msg_id].item.sender if msg_id in self.book.sent else "run"

    def _wrong(self, who: str, text: str, conversation: str = "", seq: float = 0) -> None:
        user_id = who.partition("#")[0]
        around = self._around(user_id, conversation, seq) if conversation else ""
        self.findings.append(Finding(who, text, around))

    def _around(self, user_id: str, conversation: str, seq: float) -> str:
        """Return the seqs around a place in a conversation, each with how often it came over XMPP."""
        came = Counter(got.item.msg_id for heard in self._devices[user_id] for got in heard.messages)
        reading = self.book.readings.get(user_id, Reading())
        items = [item for item in reading.sync if item.conversation == conversation]
        before = [item for item in items if (item.seq or 0) < seq][-AROUND:]
        after = [item for item in items if (item.seq or 0) >= seq][: AROUND + 1]
        return ", ".join(f"{item.seq} {item.kind} came {came[item.msg_id]}x" for item in (*before, *after))
