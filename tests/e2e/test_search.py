"""Search: any part of a text, in one's own conversations and nowhere else."""

from typing import Any

import pytest
from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_delay, wait_fixed
from tlim_client.compose import group_message
from tlim_client.http import HttpClient
from tlim_protocol.registry import MsgType

from tests.e2e.clients.people import People


async def _finds(client: HttpClient, text: str, expected: list[str], **only: Any) -> None:
    """Assert that a search finds just these messages, newest first; the index may be a moment behind."""
    async for attempt in AsyncRetrying(
        retry=retry_if_exception_type(AssertionError), wait=wait_fixed(0.1), stop=stop_after_delay(20), reraise=True
    ):
        with attempt:
            assert [hit["msg_id"] for hit in await client.search(text, **only)] == expected


@pytest.mark.proves("GET /v1/search")
async def test_part_of_a_chinese_or_english_text_is_found_by_those_who_may_read_it(people: People) -> None:
    alice, bob, carol = await people("alice", "bob", "carol")
    phone, one, other, stranger = await alice.device(), await alice.http(), await bob.http(), await carol.http()
    session_id = (await one.add_session([bob.user_id]))["session_id"]
    invoice = alice.text_to(bob, "请把三月的发票寄给我")
    english = alice.text_to(bob, "The Quarterly invoice, please")
    group = group_message(alice.user_id, session_id, MsgType.TEXT, {"text": "谁有发票?"})
    todo = group_message(alice.user_id, session_id, MsgType.GROUP_TODO, {"title": "发票", "text": "发票归档"})
    stored = [await phone.send_until_stored(message) for message in (invoice, english, group, todo)]

    everywhere = [todo.msg_id, group.msg_id, invoice.msg_id]
    for client in (one, other):
        await _finds(client, "发票", everywhere)
    await _finds(other, "月的发", [invoice.msg_id])
    await _finds(other, "quarterly INV", [english.msg_id])
    await _finds(other, "发票", everywhere[:2], conversation=session_id)
    await _finds(other, "发票", everywhere[2:], conversation=alice.user_id)
    await _finds(other, "发票", [group.msg_id], msg_type=MsgType.GROUP_TEXT)
    await _finds(other, "发票", [], sender=bob.user_id)
    await _finds(other, "发票", everywhere[:2], since=stored[2].time)
    await _finds(stranger, "发票", [])
