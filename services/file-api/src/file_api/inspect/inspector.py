"""Looking into files with worker processes: a few at a time, each with its limits, fed as the bytes come from S3."""

import asyncio
import json
import signal
import sys
from asyncio import StreamReader, StreamWriter
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import cast
from weakref import WeakValueDictionary

from tlim_runtime.background import beside
from tlim_runtime.logging import get_logger
from tlim_runtime.outages import Unavailable

from file_api.inspect.inspection import (
    MAX_THUMBNAIL_BYTES,
    MAX_WORKER_SECONDS,
    Facts,
    Inspected,
    Kind,
    Thumbnail,
    ThumbnailSize,
    UnsuitableError,
)

logger = get_logger(__name__)

_MAX_SECONDS = 3 * MAX_WORKER_SECONDS
"""By the clock, for one file with its way from S3: the kernel counts processor time only."""

_MAX_WAIT_SECONDS = 10
"""How long a request waits for a free worker before it is told to come again."""

_MAX_SAID = 2048
"""Bytes of its last words that are kept of a worker that ended early: a traceback ends with the error."""

_THROUGH_THE_FILE = frozenset(
    {signal.SIGXCPU, signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGSYS}
)
"""A worker that ends by one of these met its limit of processor time, or its decoder crashed. It would do so again."""


class WorkersBusy(Unavailable):
    """All workers have enough to do."""


class WorkerLost(Unavailable):
    """The worker did not finish, and the file need not be the reason.

    S3 was slow, the machine was short of memory or processes, or something is wrong with what is installed.
    """


class Inspector:
    """Runs at most `workers` workers at once, and one for each user: a user who asks for many blocks nobody else."""

    def __init__(self, workers: int) -> None:
        self._free = asyncio.Semaphore(workers)
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()  # by user, as long as one is held

    async def inspect(
        self, kind: Kind, data: AsyncIterator[bytes], size: ThumbnailSize | None = None, user_id: str = ""
    ) -> Inspected:
        """Return what a worker finds in a file of at most MAX_INSPECTED_BYTES, for this user or nobody.

        Raises UnsuitableError when the file cannot be read, or not within the limits; WorkersBusy; WorkerLost; what
        `data` raises.
        """
        async with AsyncExitStack() as turn:
            try:
                async with asyncio.timeout(_MAX_WAIT_SECONDS):
                    await turn.enter_async_context(self._turns.setdefault(user_id, asyncio.Lock()))
                    await turn.enter_async_context(self._free)
            except TimeoutError:
                raise WorkersBusy("too many files are being looked into") from None
            try:
                async with asyncio.timeout(_MAX_SECONDS), _worker(kind, size) as worker:
                    answer = await _converse(worker, data)
            except TimeoutError:
                raise WorkerLost("a file did not pass through its worker in time") from None
        return _read(answer)


_PROGRAMS = {Kind.IMAGE: "file_api.inspect.pictures", Kind.AUDIO: "file_api.inspect.recordings"}


@asynccontextmanager
async def _worker(kind: Kind, size: ThumbnailSize | None) -> AsyncIterator[Process]:
    arguments = [_PROGRAMS[kind], *([] if size is None else [str(size.value)])]
    # No environment: there are passwords in ours. -I: imports only what is installed; -B: writes nothing.
    command = (sys.executable, "-I", "-B", "-m", *arguments)
    try:
        process = await asyncio.create_subprocess_exec(*command, stdin=PIPE, stdout=PIPE, stderr=PIPE, env={})
    except OSError as error:
        raise WorkerLost(f"no worker could be started: {error}") from error
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def _converse(worker: Process, data: AsyncIterator[bytes]) -> bytes:
    # All three are pipes.
    stdin, stdout = cast("StreamWriter", worker.stdin), cast("StreamReader", worker.stdout)
    stderr = cast("StreamReader", worker.stderr)
    async with beside(_all_of(stdout)) as answering, beside(_last_words(stderr)) as complaining:
        with suppress(ConnectionError):  # the worker gave up early: its answer or its exit status says why
            async for chunk in data:
                stdin.write(chunk)
                await stdin.drain()
        stdin.close()
        answer, said = await answering, await complaining
    status = await worker.wait()
    if -status in _THROUGH_THE_FILE:
        logger.warning("a worker did not survive a file", status=status)
        raise UnsuitableError("it cannot be read within the limits")
    if status != 0:
        raise WorkerLost(f"a worker ended with status {status}: {said}")
    return answer


async def _last_words(stream: StreamReader) -> str:
    said = b""
    while chunk := await stream.read(2**16):
        said = (said + chunk)[-_MAX_SAID:]
    return said.decode(errors="replace").strip()


async def _all_of(stream: StreamReader) -> bytes:
    answer = b""
    while chunk := await stream.read(2**16):
        answer += chunk
        if len(answer) > 2 * MAX_THUMBNAIL_BYTES:
            raise UnsuitableError("its thumbnail is too large")
    return answer


def _read(answer: bytes) -> Inspected:
    head, _, thumbnail = answer.partition(b"\n")
    found = json.loads(head)
    if "unsuitable" in found:
        raise UnsuitableError(found["unsuitable"])
    facts = Facts(found["width"], found["height"], found["duration_ms"])
    return Inspected(facts, Thumbnail(thumbnail, found["media_type"]) if "media_type" in found else None)
