"""Random people on a real system whose parts are killed at random: `python -m tests.torture SEED`."""

import argparse
import asyncio
import os
import random
import shutil
import sys
import tempfile
import time
from contextlib import AsyncExitStack
from pathlib import Path

import httpx
from tlim_client.http import HttpClient
from tlim_devstack.ports import Ports
from tlim_devstack.services import GATEWAY, SERVICES
from tlim_devstack.stack import Stack

from tests.e2e.clients.people import People
from tests.torture.book import Book
from tests.torture.crowd import Actor, Group
from tests.torture.faults import Faults

XMPP = os.environ.get("TLIM_E2E_XMPP", "ejabberd")
MANY = "100000/minute"
LIMITS = {"TLIM_RECALL_WINDOW": "PT1H", "TLIM_TOKEN_ATTEMPTS_PER_ADDRESS": MANY}
BROKEN_S = 250
"""Within this time ejabberd notices broken connections, and gives up those that could have been resumed."""

READING_S = 120
"""The longest time that a last login may take to catch up."""

MOST_LINES = 60


def _say(text: str) -> None:
    sys.stdout.write(f"{time.strftime('%H:%M:%S')} {text}\n")
    sys.stdout.flush()


class Torture:
    """One run."""

    def __init__(self, stack: Stack, asked: argparse.Namespace) -> None:
        self._stack, self._asked = stack, asked
        self._dice = random.Random(asked.seed)  # noqa: S311 - a seed names a run
        self.book = Book()
        self.faults = Faults(stack, random.Random(asked.seed + 1), _say)  # noqa: S311

    async def run(self) -> list[str]:
        """Return what was wrong."""
        async with AsyncExitStack() as opened:
            admin = await opened.enter_async_context(
                HttpClient(self._stack.addresses.gateway, token=self._stack.admin_token())
            )
            actors = await self._people(People(self._stack, admin, opened))
            _say(f"{len(actors)} people, disturbed for {self._asked.seconds} s")
            await self._disturbed(actors)
            await self._calm()
            _say("everybody logs in once more")
            await asyncio.gather(*(self._read(actor) for actor in actors))
            return self.book.judge([actor.name for actor in actors])

    async def _people(self, people: People) -> list[Actor]:
        persons = await people(*(f"p{number:02}" for number in range(self._asked.people)))
        await asyncio.to_thread(self._stack.restart, self._stack.xmpp_name)  # now their accounts are on disk
        await asyncio.to_thread(self._stack.wait_ready, "xmpp-bridge")
        names = [one.user_id for one in persons]
        groups = []
        for _ in range(self._asked.people // 4):
            members = self._dice.sample(persons, self._dice.randint(3, 10))
            client = await members[0].http()
            made = await client.add_session([one.user_id for one in members[1:]])
            groups.append(Group(made["session_id"], frozenset(one.user_id for one in members)))
        return [
            Actor(
                one,
                random.Random(self._dice.random()),  # noqa: S311
                self.book,
                self._dice.sample([name for name in names if name != one.user_id], 3),
                [group for group in groups if one.user_id in group.members],
            )
            for one in persons
        ]

    async def _disturbed(self, actors: list[Actor]) -> None:
        over = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            for actor in actors:
                group.create_task(actor.live(over))
            disturbing = asyncio.create_task(self.faults.go_on(self._asked.calm))
            await asyncio.sleep(self._asked.seconds)
            disturbing.cancel()
            await asyncio.wait([disturbing])
            over.set()
        _say("the faults are over, and everybody has gone")

    async def _calm(self) -> None:
        """Wait until nobody is present. Sessions that the XMPP server still keeps after BROKEN_S end with a restart."""
        for name in ("nats", "postgres", XMPP, *SERVICES, GATEWAY):
            await asyncio.to_thread(self._stack.wait_ready, name)
        started = time.monotonic()
        while self._present() > 0:
            if time.monotonic() - started > BROKEN_S:
                _say(f"{self._present():.0f} people are present still: the XMPP server is restarted")
                await asyncio.to_thread(self._stack.restart, XMPP)
                await asyncio.to_thread(self._stack.wait_ready, "xmpp-bridge")
                started = time.monotonic()
            await asyncio.sleep(1)
        _say("nobody is present")

    def _present(self) -> float:
        text = httpx.get(f"http://127.0.0.1:{self._stack.ports.xmpp_bridge}/metrics", trust_env=False).text
        return float(
            next(line.split()[1] for line in text.splitlines() if line.startswith("tlim_bridge_people_present"))
        )

    async def _read(self, actor: Actor) -> None:
        device = await actor.come()
        if device is None:
            self.book.wrong.append(f"{actor.name} could not log in at the end")
            return
        try:
            async with asyncio.timeout(READING_S):
                await device.heard.came.wait()
        except TimeoutError:
            self.book.wrong.append(f"{actor.name} never caught up")
        await device.leave()


def main() -> int:
    """Run once. Returns 1 if something was wrong; then the stack's data and logs stay."""
    asked = _asked()
    home = Path(tempfile.mkdtemp(prefix=f"torture-{XMPP}-{asked.seed}-"))
    _say(f"seed {asked.seed}, {XMPP}, in {home}")
    stack = Stack(home, Ports.random(), XMPP, environment=LIMITS)
    stack.start()
    torture = Torture(stack, asked)
    try:
        wrong = asyncio.run(torture.run())
    finally:
        stack.stop()
    book, again = torture.book, torture.book.repetitions()
    acknowledged = sum(one.stored is not None for one in book.sent.values())
    _say(f"seed {asked.seed}: {torture.faults.count} faults, {len(book.devices)} logins")
    _say(f"{len(book.sent)} messages sent, {acknowledged} acknowledged")
    _say(f"{again['first']} first arrivals, {again['again']} repetitions ({again['same device']} on the same device)")
    for line in wrong[:MOST_LINES]:
        _say(line)
    _say(f"{len(wrong)} wrong")
    if not wrong:
        shutil.rmtree(home)
    return 1 if wrong else 0


def _asked() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.torture", description=__doc__)
    parser.add_argument("seed", type=int)
    parser.add_argument("--people", type=int, default=24)
    parser.add_argument("--seconds", type=float, default=120, help="how long parts are killed")
    parser.add_argument("--calm", type=float, default=12, help="the longest time between two faults, in seconds")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
