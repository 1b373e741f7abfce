"""What a killed bridge costs, with two bridges: the longest pause of conversations of people who are all present."""

import asyncio
import statistics
from collections.abc import Sequence
from contextlib import AsyncExitStack
from itertools import pairwise

from tlim_client.compose import text_message
from tlim_client.xmpp import ServerAddress
from tlim_devstack.stack import Stack

from bench.delivery_devices import TEXT, Account, Device

SECOND = "xmpp-bridge-2"

PAIRS = 16
"""So many conversations: with 8 shards of people, each bridge has some of their readers."""

RATE = 10.0
"""Messages a second of each conversation. A pause is measured to a tenth of a second."""

SHARED_S = 8.0
"""Within this time two bridges have taken even shares."""

CALM_S, AFTER_S = 3.0, 12.0
"""How long everybody writes before and after a kill."""


async def pauses(stack: Stack, server: ServerAddress, accounts: Sequence[Account], repeats: int) -> list[float]:
    """Kill one of two bridges, `repeats` times in turn. Returns the longest pause after each kill, in seconds.

    A pause is the time between two messages that arrive one after the other at one reader.
    """
    longest: list[float] = []
    async with AsyncExitStack() as opened:
        pairs = [
            (
                await opened.enter_async_context(Device(server, one)),
                await opened.enter_async_context(Device(server, two)),
            )
            for one, two in zip(accounts[::2], accounts[1::2], strict=True)
        ]
        await asyncio.to_thread(stack.start_service, SECOND)
        for turn in range(repeats):
            await asyncio.sleep(SHARED_S)
            killed = ("xmpp-bridge", SECOND)[turn % 2]
            over = asyncio.Event()
            async with asyncio.TaskGroup() as group:
                writing = [group.create_task(_write(writer, reader, over)) for writer, reader in pairs]
                await asyncio.sleep(CALM_S)
                stack.kill(killed)
                await asyncio.sleep(AFTER_S)
                over.set()
            longest.append(max(task.result() for task in writing))
            await asyncio.to_thread(stack.wait_ready, killed)
    return longest


async def _write(writer: Device, reader: Device, over: asyncio.Event) -> float:
    """Write steadily until told to stop. Returns the longest pause between two arrivals."""
    sent: list[str] = []
    while not over.is_set():
        message = text_message(writer.user, reader.user, TEXT + str(len(sent)))
        sent.append(message.msg_id)
        writer.send(message)
        await asyncio.sleep(1 / RATE)
    await reader.inbox.until_came(sent[-1])
    came = sorted(reader.inbox.came[msg_id] for msg_id in sent if msg_id in reader.inbox.came)
    return max(after - before for before, after in pairwise(came))


def told(longest: Sequence[float]) -> str:
    """Return the cell of the report."""
    return f"{statistics.median(longest):.1f} s ({', '.join(f'{one:.1f}' for one in longest)}; {PAIRS} conversations)"
