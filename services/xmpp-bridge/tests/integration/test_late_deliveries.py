"""After an outage the bridge asks what was recalled meanwhile, and delivers nothing late before it knows."""

import time
from itertools import count
from typing import Any

import pytest
from tlim_client.inbox import Delivered, Stored
from xmpp_bridge import backlog


async def test_what_was_recalled_during_an_outage_is_only_confirmed(world: Any, stored: Any, eventually: Any) -> None:
    alice, bob = await world.login("alice"), await world.login("bob")
    world.recalls.recalled = {101}
    for number in range(3):
        await world.publish(stored(number, reply_to=alice.jid, stanza_id=f"s{number}", received_at=number))
    async with world.ready_bridge():
        await bob.expect(Delivered, lambda event: event.seq == 102)
        await alice.expect(Stored, lambda event: event.seq == 102)
        await eventually(world.all_acknowledged)
    # On a busy machine a lease may lapse. Then some come again.
    assert list(dict.fromkeys(event.seq for event in bob.inbox.all(Delivered))) == [100, 102]
    assert list(dict.fromkeys(event.seq for event in alice.inbox.all(Stored))) == [100, 101, 102]
    assert sorted(set(world.recalls.asked)) == [100, 101, 102]


async def test_while_the_store_cannot_be_asked_late_messages_wait(world: Any, stored: Any, eventually: Any) -> None:
    bob = await world.login("bob")
    world.recalls.is_up = False
    await world.publish(stored())
    async with world.bridge() as bridge:

        async def is_red() -> None:
            assert "recalled" in (await bridge.checks())["deliveries"]

        await eventually(is_red)
        assert bob.inbox.all(Delivered) == []
        world.recalls.is_up = True
        assert (await bob.expect(Delivered)).seq == 100
        await eventually(bridge.is_ready)


async def test_fresh_messages_are_not_asked_about(
    world: Any, stored: Any, eventually: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backlog, "LATE_MS", 60_000)  # a busy machine may take more than the usual three seconds
    async with world.ready_bridge():
        bob = await world.login("bob")
        await eventually(lambda: world.mailboxes.is_live("bob"))
        numbers = count()

        async def is_not_asked_about() -> None:  # on a busy machine a lease may lapse: then one counts as late
            number = next(numbers)
            await world.publish(stored(number, stored_at=time.time_ns() // 1_000_000))
            await bob.expect(Delivered, lambda event: event.seq == 100 + number)
            assert 100 + number not in world.recalls.asked

        await eventually(is_not_asked_about)
