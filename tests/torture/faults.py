"""Does the faults of a plan, step by step. A step is over when everything is ready, and messages come through again."""

import asyncio
import os
import signal
import time
from collections.abc import Awaitable, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tlim_devstack.failures import StackError
from tlim_devstack.waiting import wait_until

from tests.torture.device import Clock
from tests.torture.plan import Fault, How, Step
from tests.torture.system import System


@dataclass(frozen=True)
class Done:
    """A step that was survived: when it began, and how many seconds later it was over."""

    step: Step
    at: float
    took: float

    def __str__(self) -> str:
        return f"at {self.at:7.1f} s, survived after {self.took:4.1f} s: {', '.join(map(str, self.step.faults))}"


class Faults:
    """Does faults. `is_well` returns when messages come through, and raises TimeoutError if they do not."""

    def __init__(
        self, system: System, now: Clock, say: Callable[[str], None], is_well: Callable[[], Awaitable[None]]
    ) -> None:
        self._system, self._now, self._say, self._is_well = system, now, say, is_well
        self.done: list[Done] = []
        self.wrong: list[str] = []
        self._is_enough = False

    def end(self) -> None:
        """Do no further step. What happened until now is judged."""
        self._is_enough = True

    async def go_through(self, steps: Iterable[Step]) -> None:
        """Do all steps, up to `end` or the first that is not survived."""
        for number, step in enumerate(steps, 1):
            await asyncio.sleep(step.calm)
            if self._is_enough:
                return
            at = self._now()
            with ThreadPoolExecutor(len(step.faults)) as pool:
                loop = asyncio.get_running_loop()
                works = [loop.run_in_executor(pool, self._do, fault) for fault in step.faults]
                outcomes = await asyncio.gather(*works, return_exceptions=True)
            for fault, outcome in zip(step.faults, outcomes, strict=True):
                if isinstance(outcome, StackError):
                    self.wrong.append(f"{fault} at {at:.1f} s: {outcome}")
                elif isinstance(outcome, BaseException):
                    raise outcome
            if not await self._is_over(step, at):
                return
            done = Done(step, at, self._now() - at)
            self.done.append(done)
            self._say(f"step {number} {done}")

    async def _is_over(self, step: Step, at: float) -> bool:
        named = ", ".join(map(str, step.faults))
        try:
            await asyncio.to_thread(self._system.all_ready)
            await self._is_well()
        except (StackError, TimeoutError) as error:
            self.wrong.append(f"not survived: {named} at {at:.1f} s: {error}")
            self._say(self.wrong[-1])
            return False
        return True

    def _do(self, fault: Fault) -> None:
        match fault.how:
            case How.KILL:
                self._kill(fault.part)
            case How.PAUSE:
                self._pause(fault.part, fault.seconds)
            case How.RESTART | How.LEAVE:
                self._system.stack.stop_service(fault.part)
                time.sleep(fault.seconds)
                self._system.stack.start_service(fault.part)
            case How.JOIN:
                self._system.joined.add(fault.part)
                self._system.stack.start_service(fault.part)
            case How.CUT | How.HUSH:
                way = fault.part, fault.server
                self._system.relays.disturb(way, fault.how)
                time.sleep(fault.seconds)
                self._system.relays.mend(way)

    def _kill(self, part: str) -> None:
        supervisor = self._system.stack.supervisor
        before = supervisor.pid(part)
        self._system.stack.kill(part)
        wait_until(lambda: supervisor.pid(part) not in {0, before}, f"the return of {part}")

    def _pause(self, part: str, seconds: float) -> None:
        pids = _tree(self._system.stack.supervisor.pid(part))
        _signal(pids, signal.SIGSTOP)
        time.sleep(seconds)
        _signal(pids, signal.SIGCONT)


def _tree(pid: int) -> list[int]:
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except (FileNotFoundError, ProcessLookupError):
        return []
    return [pid, *(one for child in children for one in _tree(int(child)))]


def _signal(pids: Iterable[int], number: signal.Signals) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)
