"""Whose conversation it is, and how pages follow each other."""

from collections.abc import Sequence

import pytest
from message_store.history_service import conversation_with, read_page
from message_store.models import Message
from tlim_protocol.errors import ErrorCode, TlimError
from tlim_protocol.registry import MsgType


def row(seq: int) -> Message:
    return Message(
        seq=seq, conversation_id="u:alice:bob", sender="alice", recipient="bob", msg_id=str(seq),
        msg_type=MsgType.TEXT, version="2.0.0", body=[{"text": "hi"}], msg_time="1", location="web", stored_at=1,
    )  # fmt: skip


class FakeReader:
    """A conversation of seqs 1 to `size`; remembers which conversation was asked for."""

    def __init__(self, size: int) -> None:
        self.seqs = range(1, size + 1)
        self.asked: list[str] = []

    async def messages_before(self, conversation_id: str, before: int | None, limit: int) -> Sequence[Message]:
        self.asked.append(conversation_id)
        older = [seq for seq in reversed(self.seqs) if before is None or seq < before]
        return [row(seq) for seq in older[:limit]]

    async def messages_after(self, conversation_id: str, after: int, limit: int) -> Sequence[Message]:
        self.asked.append(conversation_id)
        return [row(seq) for seq in self.seqs if seq > after][:limit]


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
    assert reader.asked == ["u:alice:bob"]


@pytest.mark.parametrize("peer", ["u:bob:carol", "bob@im.example", "x" * 65, " "])
def test_what_cannot_be_a_user_is_no_conversation(peer: str) -> None:
    with pytest.raises(TlimError) as refused:
        conversation_with("alice", peer)
    assert refused.value.code is ErrorCode.SESSION_UNKNOWN
