"""Whose conversation it is, and how pages follow each other."""

from collections.abc import Collection

import pytest
from message_store.reading.history_service import find_conversation, read_page
from message_store.reading.slice_repository import Slice
from message_store.values import ReadRow
from tlim_protocol.errors import ErrorCode, TlimError
from tlim_protocol.registry import MsgType


def row(seq: int) -> ReadRow:
    return ReadRow(
        seq=seq, conversation_id="u:alice:bob", sender="alice", recipient="bob", msg_id=str(seq), msg_type=MsgType.TEXT,
        version="2.0.0", body='[{"text":"hi"}]', msg_time="1", stored_at=1,
    )  # fmt: skip


class FakeReader:
    """A conversation of seqs 1 to `size`; remembers which conversation was asked for."""

    def __init__(self, size: int, memberships: Collection[str] = ()) -> None:
        self.seqs = range(1, size + 1)
        self.memberships = memberships
        self.asked: list[tuple[str, str]] = []

    async def conversations_of(self, _user_id: str, conversation_ids: Collection[str]) -> set[str]:
        return set(self.memberships).intersection(conversation_ids)

    async def messages_before(self, user_id: str, conversation_id: str, before: int | None, limit: int) -> Slice:
        self.asked.append((user_id, conversation_id))
        older = [seq for seq in reversed(self.seqs) if before is None or seq < before]
        return Slice([row(seq) for seq in older[:limit]], len(older) > limit)

    async def messages_after(self, user_id: str, conversation_id: str, after: int, limit: int) -> Slice:
        self.asked.append((user_id, conversation_id))
        newer = [seq for seq in self.seqs if seq > after]
        return Slice([row(seq) for seq in newer[:limit]], len(newer) > limit)


async def seqs(reader: FakeReader, *, before: int | None = None, after: int | None = None) -> tuple[object, ...]:
    page = await read_page(reader, "alice", "bob", before=before, after=after, limit=2)
    return [message.seq for message in page.messages], page.next, page.more


async def test_pages_go_from_the_newest_back_to_the_first() -> None:
    reader = FakeReader(3)
    assert await seqs(reader) == ([3, 2], 2, True)
    assert await seqs(reader, before=2) == ([1], 1, False)
    assert await seqs(reader, before=1) == ([], 1, False)


async def test_pages_after_a_seq_go_forward_and_keep_their_place_at_the_end() -> None:
    reader = FakeReader(3)
    assert await seqs(reader, after=0) == ([1, 2], 2, True)
    assert await seqs(reader, after=2) == ([3], 3, False)
    assert await seqs(reader, after=3) == ([], 3, False)


async def test_a_full_last_page_says_that_nothing_follows() -> None:
    assert await seqs(FakeReader(2)) == ([2, 1], 1, False)


async def test_an_empty_conversation_is_an_empty_page() -> None:
    assert await seqs(FakeReader(0)) == ([], None, False)


async def test_both_cursors_at_once_are_refused() -> None:
    with pytest.raises(TlimError) as refused:
        await seqs(FakeReader(1), before=1, after=1)
    assert refused.value.code is ErrorCode.FIELD_INVALID


async def test_only_a_conversation_with_oneself_in_it_is_ever_read() -> None:
    reader = FakeReader(1)
    await read_page(reader, "alice", "BOB", before=None, after=None, limit=1)
    assert reader.asked == [("alice", "u:alice:bob")]


SESSION = "6f1c5e0a-9d6b-4a53-8a3e-0d6c1b7f2a10"


async def test_a_session_that_one_was_in_is_meant_by_its_id() -> None:
    assert await find_conversation(FakeReader(0, [SESSION, f"u:{SESSION}:alice"]), "alice", SESSION) == SESSION


async def test_a_user_whose_id_looks_like_a_session_is_meant_where_one_has_talked_to_him() -> None:
    assert await find_conversation(FakeReader(0, [f"u:{SESSION}:alice"]), "alice", SESSION) == f"u:{SESSION}:alice"


@pytest.mark.parametrize("name", ["u:alice:bob", "u:bob:carol", "bob@im.example", "x" * 65, " ", "\x00", SESSION])
async def test_what_can_be_no_conversation_of_mine_is_refused(name: str) -> None:
    with pytest.raises(TlimError) as refused:
        await find_conversation(FakeReader(1, ["u:alice:bob"]), "alice", name)
    assert refused.value.code is ErrorCode.SESSION_UNKNOWN
