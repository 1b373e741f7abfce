"""The inbox hands out every event once, to the task that waits for it."""

import asyncio

import pytest
from tlim_client.failures import NotReceivedError
from tlim_client.inbox import Inbox, Plain, Stored


def _plain(body: str) -> Plain:
    return Plain("bob@d/phone", body, "1")


async def test_an_event_is_handed_out_once_and_stays_in_history() -> None:
    inbox = Inbox()
    inbox.put(_plain("one"))

    assert (await inbox.take(Plain)).body == "one"
    with pytest.raises(NotReceivedError):
        await inbox.take(Plain, within=0.01)
    assert inbox.all(Plain) == [_plain("one")]


async def test_who_waits_is_woken_and_others_events_stay_for_others() -> None:
    inbox = Inbox()
    stored = asyncio.create_task(inbox.take(Stored))
    second = asyncio.create_task(inbox.take(Plain, lambda event: event.body == "two"))
    for event in (_plain("one"), Stored("m", 1, 2), _plain("two")):
        inbox.put(event)

    assert await stored == Stored("m", 1, 2)
    assert await second == _plain("two")
    assert await inbox.next() == _plain("one")


async def test_what_came_instead_is_named_when_nothing_fits() -> None:
    inbox = Inbox()
    inbox.put(_plain("something else"))

    with pytest.raises(NotReceivedError, match=r"no Stored as expected.*something else"):
        await inbox.take(Stored, within=0.01)
