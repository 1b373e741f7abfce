"""The operations view's questions to all instances: bounded, however many people look."""

import asyncio
import time
from collections import deque

from tlim_protocol.characters import is_plain_text
from tlim_protocol.events import AuditAction, AuditNote
from tlim_protocol.operations import InstanceReport, TrailAnswer, TrailQuestion
from tlim_protocol.subjects import Rpc
from tlim_runtime.broker import Broker
from tlim_runtime.database import Database
from tlim_runtime.reports import ask_all, now_ms

from message_store.operate.dead_letters import DeadLetterBox
from message_store.operate.schemas import DeadLetter, DeadLetters, LogEntry, MessageWay, Snapshot, WayStep
from message_store.operate.way_repository import WayReader

FRESH_S = 1.5
"""Who asks within this time gets the same snapshot. The page asks every 2 s."""

ROUNDS = 5
"""In so many rounds an instance that gives no answer is still waited for. If it was only late, its next answer counts.

After that it counts as gone, and the page no longer waits LATE_S for it in each round.
"""

SAME_ID = 20
"""So many messages with one msg_id are shown, the newest. Every sender may use any msg_id."""


class Watch:
    """Asks all instances, for everybody who looks at once; one question of each kind at a time."""

    def __init__(self, broker: Broker, database: Database) -> None:
        self._broker = broker
        self._database = database
        self._letters = DeadLetterBox(broker)
        self._snapshot = Snapshot(at=0, reports=[])
        self._taken_at = float("-inf")
        self._answered: deque[int] = deque(maxlen=ROUNDS)  # how many instances, in each of the last rounds
        self._asking, self._following, self._opening = asyncio.Lock(), asyncio.Lock(), asyncio.Lock()

    async def snapshot(self) -> Snapshot:
        """Return what all instances say, at most FRESH_S old; raises BrokerUnavailable."""
        async with self._asking:
            if time.monotonic() - self._taken_at >= FRESH_S:
                answers = await ask_all(self._broker, Rpc.OPERATIONS_REPORT, b"", self._expected)
                reports = sorted(map(InstanceReport.from_bytes, answers), key=lambda one: (one.service, one.instance))
                self._snapshot = Snapshot(at=now_ms(), reports=reports)
                self._taken_at = time.monotonic()
                self._answered.append(len(reports))
            return self._snapshot

    async def way(self, msg_id: str) -> MessageWay:
        """Return the way of a message; raises BrokerUnavailable and DatabaseUnavailable."""
        if not is_plain_text(msg_id):  # no message has such an id, and PostgreSQL takes no NUL
            return MessageWay(msg_id=msg_id, rows=[], steps=[])
        async with self._following:
            question = TrailQuestion(msg_id=msg_id).to_bytes()
            payloads = await ask_all(self._broker, Rpc.OPERATIONS_TRAIL, question, self._expected)
            async with self._database.session() as session:
                rows = await WayReader(session).rows(msg_id, SAME_ID)
        steps = [
            WayStep(at=step.at, step=step.step, service=answer.service, instance=answer.instance, detail=step.detail)
            for answer in map(TrailAnswer.from_bytes, payloads)
            for step in answer.steps
        ]
        rows_read = [LogEntry.model_validate(row, from_attributes=True) for row in rows]
        return MessageWay(msg_id=msg_id, rows=rows_read, steps=sorted(steps, key=lambda step: step.at))

    async def dead_letters(self, before: int | None, limit: int) -> DeadLetters:
        """Return a page of dead letters; raises BrokerUnavailable."""
        async with self._opening:
            return await self._letters.page(before, limit)

    async def redrive(self, seq: int, actor: str, request_id: str) -> DeadLetter | None:
        """Write down who asks for it, then send a dead letter its way again; None if there is none.

        Raises BrokerUnavailable, also while the audit log cannot be written: then nothing is sent. Raises
        TlimError(FIELD_INVALID) for a letter that cannot be sent: then nothing is written down.
        """
        async with self._opening:
            if not await self._letters.sendable(seq):
                return None
            note = AuditNote(
                actor=actor,
                request_id=request_id,
                action=AuditAction.DEAD_LETTER_REDRIVEN,
                target=str(seq),
                detail={},
            )
            await self._broker.request(Rpc.AUDIT_NOTE, note.to_bytes())
            return await self._letters.redrive(seq)

    @property
    def _expected(self) -> int | None:
        """How many instances are waited for; None: nobody knows yet."""
        return max(self._answered, default=0) or None
