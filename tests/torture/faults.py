"""Kills, pauses and restarts parts of a stack at random."""

import asyncio
import os
import random
import signal
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

from tlim_devstack.failures import StackError
from tlim_devstack.stack import Stack
from tlim_devstack.waiting import wait_until

LONGEST_PAUSE_S = 20.0


def _tree(pid: int) -> list[int]:
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *(one for child in children for one in _tree(int(child)))]


def _signal(pids: Iterable[int], number: signal.Signals) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


class Faults:
    """Does one fault after the other. Each is over when its part is ready again."""

    def __init__(self, stack: Stack, dice: random.Random, say: Callable[[str], None]) -> None:
        self._stack, self._dice, self._say = stack, dice, say
        self._parts = ["xmpp-bridge"] * 3 + ["message-store"] * 2 + ["nats", "postgres"] + [stack.xmpp_name] * 2
        self._ways = [self.kill, self.kill, self.pause, self.restart]
        self.count = 0

    async def go_on(self, calm: float) -> None:
        """Disturb until cancelled, with pauses of about `calm` seconds."""
        while True:
            await asyncio.sleep(self._dice.uniform(calm / 3, calm))
            part, how = self._dice.choice(self._parts), self._dice.choice(self._ways)
            self.count += 1
            self._say(f"fault {self.count}: {how.__name__} {part}")
            work = asyncio.create_task(asyncio.to_thread(how, part, self._dice.uniform(0.5, LONGEST_PAUSE_S)))
            try:
                await asyncio.shield(work)
            except asyncio.CancelledError:
                await work  # the part must be ready again
                raise
            except StackError as error:
                self._say(f"fault {self.count}: {error}")

    def kill(self, part: str, seconds: float) -> None:
        """Kill a part with SIGKILL, and wait until it is back."""
        del seconds
        before = self._stack.supervisor.pid(part)
        self._stack.kill(part)
        wait_until(lambda: self._stack.supervisor.pid(part) not in {0, before}, f"the return of {part}")
        self._stack.wait_ready(part)

    def pause(self, part: str, seconds: float) -> None:
        """Stop a part's processes for some time: its connections stay open."""
        pids = _tree(self._stack.supervisor.pid(part))
        _signal(pids, signal.SIGSTOP)
        time.sleep(seconds)
        _signal(pids, signal.SIGCONT)
        self._stack.wait_ready(part)

    def restart(self, part: str, seconds: float) -> None:
        """Stop a part in order, and start it again at once."""
        del seconds
        self._stack.restart(part)
