"""The load generator: a process of its own, with people that are logged in and write to each other.

    with LoadGenerator(target, accounts) as load:
        outcome = load.run(Flood(window=32, seconds=10))

Between two runs it is silent, so several systems can be measured in turn. What a run costs is the difference between
two looks at the processor times of the servers, before and after `run`.
"""

import asyncio
import gc
import multiprocessing
import resource
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from types import TracebackType
from typing import NamedTuple, Self

from bench.lanes import Lane, Room, pairs_of, room_of
from bench.stream import Account, Stanza, Stream, Target

DRAIN_S = 60.0
"""After the end of a run, so long may pass until all that was sent has arrived."""

LOGINS_AT_ONCE = 8


class Flood(NamedTuple):
    """As fast as it goes: each writer has `window` messages on their way at a time, for `seconds`."""

    window: int
    seconds: float


class Steady(NamedTuple):
    """`rate` messages a second, spread evenly over the writers, for `seconds`."""

    rate: float
    seconds: float


Job = Flood | Steady


@dataclass
class Outcome:
    """What came of a run.

    `rate` is of complete messages per second, without the first tenth of the run. A message is complete when all
    readers have it, and when the writer has its confirmation, if there is one. `latencies` are the seconds from the
    moment at which a message was due to its arrival at the last reader. `sent` is the number of all messages, and
    `busy` the share of a core that this process used.
    """

    sent: int = 0
    rate: float = 0.0
    busy: float = 0.0
    latencies: list[float] = field(default_factory=list)


class LoadGenerator:
    """The process, as its user sees it. The people log in while the block is entered.

    Without a room they are pairs: the first writes to the second, the third to the fourth. With a room the first writes
    to all others.
    """

    def __init__(self, target: Target, accounts: Sequence[Account], room: Room | None = None) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_be_the_load, args=(target, accounts, room, theirs), daemon=True)
        self._process.start()
        theirs.close()

    def __enter__(self) -> Self:
        assert self._pipe.recv() == "ready"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.terminate()
        self._process.join()

    def run(self, job: Job) -> Outcome:
        """Return what came of a job. Raises EOFError if the process failed; its own error is on stderr."""
        self._pipe.send(job)
        outcome: Outcome = self._pipe.recv()
        return outcome


# --- in the process ---------------------------------------------------------------------------------------------------


def allow_many_sockets() -> None:
    """Let this process have as many open files as it may: each person has a socket."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _be_the_load(target: Target, accounts: Sequence[Account], room: Room | None, pipe: Connection) -> None:
    allow_many_sockets()
    asyncio.run(_serve(target, accounts, room, pipe))


async def _serve(target: Target, accounts: Sequence[Account], room: Room | None, pipe: Connection) -> None:
    slots = asyncio.Semaphore(LOGINS_AT_ONCE)

    async def log_in(account: Account) -> Stream:
        async with slots:
            return await Stream.log_in(target, account)

    streams = await asyncio.gather(*map(log_in, accounts))
    lanes = pairs_of(streams) if room is None else [await room_of(streams, room)]
    gc.freeze()
    pipe.send("ready")
    while True:
        job: Job = await asyncio.to_thread(pipe.recv)
        cpu, begun = time.process_time(), time.perf_counter()
        outcome = await _Run(lanes).work(job)
        outcome.busy = (time.process_time() - cpu) / (time.perf_counter() - begun)
        pipe.send(outcome)
        gc.collect()


class _Run:
    """One job. Everything happens when a stanza comes: there is no task that could wait for its turn."""

    def __init__(self, lanes: Sequence[Lane]) -> None:
        self._lanes, self._prefix, self._outcome = lanes, secrets.token_hex(6), Outcome()
        self._due: dict[str, float] = {}
        self._unread: dict[str, int] = {}  # readers that do not have the message yet
        self._awaited: dict[str, int] = {}  # stanzas that are still to come: to readers, and the confirmation
        self._counted_from, self._until, self._completed = 0.0, 0.0, 0
        self._floods = False
        self._failure: Stanza | None = None
        self._idle = asyncio.Event()
        for lane in lanes:
            lane.listen(self._arrives, self._confirms)

    async def work(self, job: Job) -> Outcome:
        begun = time.monotonic()
        self._counted_from, self._until = begun + job.seconds / 10, begun + job.seconds
        if isinstance(job, Flood):
            self._floods = True
            for _ in range(job.window):
                for lane in self._lanes:
                    self._send(lane, time.monotonic())
            await asyncio.sleep(job.seconds)
        else:
            await self._pace(begun, job)
        self._floods = False
        async with asyncio.timeout(DRAIN_S):
            while self._awaited and self._failure is None:
                self._idle.clear()
                await self._idle.wait()
        if self._failure is not None:
            raise RuntimeError(f"a message was refused: {self._failure}")
        self._outcome.rate = self._completed / (self._until - self._counted_from)
        return self._outcome

    async def _pace(self, begun: float, job: Steady) -> None:
        for number in range(max(int(job.rate * job.seconds), 1)):
            due = begun + number / job.rate
            if (early := due - time.monotonic()) > 0:
                await asyncio.sleep(early)
            self._send(self._lanes[number % len(self._lanes)], due)

    def _send(self, lane: Lane, due: float) -> None:
        self._outcome.sent += 1
        message_id = f"{self._prefix}-{self._outcome.sent}"
        self._due[message_id], self._unread[message_id] = due, len(lane.readers)
        self._awaited[message_id] = len(lane.readers) + lane.confirms
        lane.write(message_id)

    def _arrives(self, lane: Lane, stanza: Stanza) -> None:
        message_id = self._id_in(stanza)
        if message_id is None:
            return
        self._unread[message_id] -= 1
        if not self._unread[message_id]:
            self._outcome.latencies.append(time.monotonic() - self._due[message_id])
        self._passed(lane, message_id)

    def _confirms(self, lane: Lane, stanza: Stanza) -> None:
        message_id = self._id_in(stanza)
        if any(name == "error" for name, _ in stanza):
            self._failure = stanza
            self._idle.set()
        elif message_id is not None and lane.confirms:
            self._passed(lane, message_id)

    def _id_in(self, stanza: Stanza) -> str | None:
        """Return the id of the message that is in a stanza. MUC/Sub wraps it."""
        return next((one["id"] for _, one in stanza if one.get("id") in self._awaited), None)

    def _passed(self, lane: Lane, message_id: str) -> None:
        self._awaited[message_id] -= 1
        if self._awaited[message_id]:
            return
        del self._awaited[message_id], self._unread[message_id], self._due[message_id]
        now = time.monotonic()
        self._completed += self._counted_from <= now < self._until
        if self._floods:
            self._send(lane, now)
        elif not self._awaited:
            self._idle.set()
