"""What each instance says of itself when an operator looks, and how the answers of all instances are gathered."""

import asyncio
import secrets
import socket
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from nats.aio.msg import Msg
from prometheus_client import CollectorRegistry
from tlim_protocol.operations import InstanceReport, LogLine, Sample, TrailAnswer, TrailQuestion, TrailStep
from tlim_protocol.subjects import Rpc

from tlim_runtime.broker import Broker
from tlim_runtime.health import Health
from tlim_runtime.logging import last_errors
from tlim_runtime.metrics import Metrics

PROMPT_S = 0.3
"""So long we wait at least: an instance that is new answers within this time."""

LATE_S = 2.5
"""So long we wait at most, for instances that answered before. A check of a server that is away takes 2 s."""

MOST_ANSWERS = 200
"""More instances than a deployment has; answers after these are not kept."""


class Reporter:
    """Answers for one instance."""

    def __init__(self, app: FastAPI, service: str) -> None:
        self._health: Health = app.state.health
        self._metrics: Metrics = app.state.metrics
        self._service, self._version = service, app.version
        self._instance = f"{socket.gethostname()}-{secrets.token_hex(2)}"  # hosts may run several
        self._started_at = now_ms()

    async def report(self, _question: bytes) -> bytes:
        """Answer what this instance is, whether it is well, and all its metrics except those of HTTP."""
        return InstanceReport(
            service=self._service,
            instance=self._instance,
            version=self._version,
            started_at=self._started_at,
            at=now_ms(),
            checks=await self._health.check(),
            warnings=self._health.warnings,
            samples=list(samples(self._metrics.registry)),
            errors=[
                LogLine(at=at, level=level, event=event, detail=detail) for at, level, event, detail in last_errors()
            ],
        ).to_bytes()

    async def trail(self, question: bytes) -> bytes:
        """Answer which steps of a message this instance remembers."""
        steps = self._metrics.trail.of(TrailQuestion.from_bytes(question).msg_id)
        return TrailAnswer(
            service=self._service,
            instance=self._instance,
            steps=[TrailStep(step=step.value, at=at, detail=detail) for step, at, detail in steps],
        ).to_bytes()


def samples(registry: CollectorRegistry) -> Iterator[Sample]:
    """Yield the metrics of ours. Those of HTTP are too many: one for each route, status and bucket."""
    for family in registry.collect():
        if family.name.startswith("tlim_") and not family.name.startswith("tlim_http_"):
            for one in family.samples:
                if not one.name.endswith("_created"):
                    yield Sample(name=one.name, labels=one.labels, value=one.value)


def now_ms() -> int:
    """Return the time in epoch milliseconds."""
    return time.time_ns() // 1_000_000


@asynccontextmanager
async def reporting(app: FastAPI, broker: Broker, service: str) -> AsyncIterator[None]:
    """Answer operators' questions from now on. Every instance answers each of them."""
    reporter = Reporter(app, service)
    await broker.respond(Rpc.OPERATIONS_REPORT, reporter.report, "")
    await broker.respond(Rpc.OPERATIONS_TRAIL, reporter.trail, "")
    yield


async def ask_all(broker: Broker, subject: Rpc, payload: bytes, expected: int | None) -> list[bytes]:
    """Return the answers of all instances, in the order of their coming; raises BrokerUnavailable.

    This waits for PROMPT_S, and then until `expected` instances have answered, or LATE_S are over. None: nobody knows
    yet how many there are.
    """
    answers: list[bytes] = []
    enough = asyncio.Event()

    async def received(message: Msg) -> None:
        if len(answers) < MOST_ANSWERS and message.data:
            answers.append(message.data)
        if expected is not None and len(answers) >= expected:
            enough.set()

    inbox = broker.new_inbox()
    subscription = await broker.subscribe(inbox, received)
    try:
        await broker.send(subject, payload, inbox)
        await asyncio.sleep(PROMPT_S)
        async with asyncio.timeout(LATE_S - PROMPT_S):
            await enough.wait()
    except TimeoutError:
        pass  # somebody has gone, or hangs
    finally:
        await broker.unsubscribe(subscription)
    return answers
