"""The story of a batch: check what can be stored at all, look up, decide, write, commit, publish."""

import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, contextmanager, suppress
from dataclasses import dataclass, field
from itertools import groupby
from typing import Protocol

from cachetools import TTLCache
from tlim_protocol.errors import ErrorCode, TlimError
from tlim_protocol.events import OutEvent, RejectedMessage, SessionEvent
from tlim_runtime.logging import NAMED_IN_LOG, get_logger
from tlim_runtime.outages import Unavailable
from tlim_runtime.tracing import trace_of, traces_of

from message_store import survey
from message_store.errors import ItemRefused, OthersWereFaster, StatementTooSlow, SurveyOutdated
from message_store.plan import Plan
from message_store.portions import portions
from message_store.refusals import refusal_of
from message_store.rosters import RosterCache
from message_store.values import ArrivedMessage, Item, Known, Progress, Writes

logger = get_logger(__name__)

MAX_NAMED = 50_000
"""The most people and messages that the items of one transaction name together. A batch with many events of groups of
10,000, or with many receipts for 1,000 messages each, would take longer than a statement may. 50,000 memberships take
about 1 s to write, and 50,000 ids in receipts about 1 s to look up."""

MAX_OUTDATED = 3
"""So often a batch is surveyed and planned again because another store was faster. That takes the same message in the
same milliseconds. If it goes on, the mistake is in our own plan, and the item is found by halves."""

MAX_OVERTAKEN = 20
"""So often a batch is surveyed again because other stores have changed what it refers to. Each time a change of theirs
was committed within milliseconds, so it ends soon. If it does not, the batch comes again, and nothing is refused."""

MAX_TOO_SLOW = 12
"""Statements of a batch that may be cancelled before we give it up. To find one slow message among 2,000 by halves
takes 12. If there are more, the database may be slow altogether. The batch comes again, and what was found is refused
at once."""

REMEMBER_SLOW_S = 120.0
"""For so long a message that was too slow is refused at once. A client that sends it again at once costs nothing. The
time begins anew when a batch is given up, because a try can take as long: 13 statements of 8 s. So each try gets
further than the last."""

MAX_REMEMBERED = 1_000


class LogTables(survey.SurveyedTables, Protocol):
    """Where messages are kept (archive_repository.Archive)."""

    def transaction(self) -> AbstractAsyncContextManager[None]:
        """Commit on leaving; no other transaction draws a seq meanwhile."""

    async def draw(self, count: int, /) -> list[int]:
        """Return the next seqs, rising."""

    async def changed_sessions(self, versions: Mapping[str, int | None], /) -> Sequence[str]:
        """Return those of the sessions that have another version; None: there is no such session."""

    async def any_recalled(self, seqs: Collection[int], /) -> bool:
        """Tell whether any of these messages is recalled."""

    async def write(self, writes: Writes, /) -> None:
        """Write what a batch changes."""

    async def applied(self) -> Progress:
        """Return how many changes of sessions are applied."""

    async def note_applied(self, changes: Sequence[int], /) -> None:
        """Note that these changes of sessions are applied."""


class Counters(Protocol):
    """What is counted (metrics.StoreMetrics)."""

    def stored(self, types: Mapping[str, int], /) -> None:
        """Note newly stored messages: how many of each type."""

    def committed(self, items: Sequence[Item], /) -> None:
        """Note that what became of these items is committed now."""

    def recorded(self, items: Sequence[Item], committed: int, published: int, /) -> None:
        """Note when they were committed, and published: epoch milliseconds."""

    def rejected(self, code: ErrorCode) -> None:
        """Note a refused message."""


class BatchPublication(Protocol):
    """How the outcome of a transaction is published (publication.Publication)."""

    def turn(self) -> AbstractAsyncContextManager[None]:
        """Enter alone: no other task commits or publishes inside.

        After a failure inside, nothing new is published before table and stream have been compared.
        """

    def require_certainty(self) -> None:
        """Raise BrokerUnavailable when nothing new may be published; inside `turn`."""

    async def follow(self, seqs: Sequence[int]) -> None:
        """Wait until everything before `seqs` is published; last in the transaction that drew them."""

    async def publish(self, events: Sequence[OutEvent]) -> None:
        """Publish the events of the transaction in order."""


def _named_by(item: Item) -> int:
    return len(item.subscribers if isinstance(item, SessionEvent) else item.envelope.body)


def _key_of(message: ArrivedMessage) -> tuple[str, str]:
    return message.sender, message.envelope.msg_id


@dataclass
class Outcome:
    """What became of a batch so far."""

    reasons: list[str | None] = field(default_factory=list)  # per item: why it can never be stored
    too_slow: int = 0  # statements that were cancelled
    refused: list[ArrivedMessage] = field(default_factory=list)  # too slow, and their senders are still to be told
    slow: set[tuple[str, str]] = field(default_factory=set)  # sender and msg_id of messages that were too slow


class Recorder:
    """Stores batches and publishes what became of them."""

    def __init__(
        self,
        archive: LogTables,
        directory: survey.SurveyedServices,
        publication: BatchPublication,
        counters: Counters,
        *,
        now: Callable[[], int],
        recall_window: int,
        read_to_all: int,
        timer: Callable[[], float] = time.monotonic,
    ) -> None:
        self._archive = archive
        self._directory = directory
        self._publication = publication
        self._counters = counters
        self._now = now  # epoch milliseconds
        self._recall_window = recall_window  # milliseconds
        self._read_to_all = read_to_all  # members
        self._rosters = RosterCache()
        self._slow: TTLCache[tuple[str, str], bool] = TTLCache(MAX_REMEMBERED, REMEMBER_SLOW_S, timer)
        self._survey = survey.Survey(archive, directory, self._rosters)

    async def record(self, items: Sequence[Item]) -> list[str | None]:
        """Store a batch and publish its outcome, usually in one transaction.

        Return for each item None, or why it can never be stored. Afterwards each item is committed and its delivery is
        published, or its sender is told why not. Raises DatabaseUnavailable or BrokerUnavailable when this fails; the
        same batch may then come again.
        """
        outcome = Outcome()
        async with self._publication.turn():
            if items:
                self._publication.require_certainty()  # otherwise all the work would be rolled back in the end
            with self._slow_remembered(outcome):
                await self._store_all(items, outcome)
                await self._tell_slow(outcome)
        return outcome.reasons

    async def _store_all(self, items: Sequence[Item], outcome: Outcome) -> None:
        for is_slow, run in groupby(items, self._is_known_as_slow):
            if is_slow:
                refused = list(run)
                outcome.slow.update(_key_of(item) for item in refused if isinstance(item, ArrivedMessage))
                self._refuse_slow(refused, outcome)
                continue
            for portion in portions(list(run), _named_by, MAX_NAMED):
                await self._store(portion, outcome)

    async def _publish(self, items: Sequence[Item], events: Sequence[OutEvent]) -> None:
        """Publish what became of these items, which is committed, and count it."""
        committed = self._now()
        self._counters.committed(items)
        await self._publication.publish(events)
        self._counters.recorded(items, committed, self._now())
        for event in events:
            if isinstance(event, RejectedMessage):
                self._counters.rejected(event.code)

    async def applied(self) -> Progress:
        """Return how many changes of sessions are applied, by whichever store; raises DatabaseUnavailable."""
        async with self._publication.turn():
            return await self._archive.applied()

    async def _store(self, items: Sequence[Item], outcome: Outcome) -> None:
        """Store in one transaction, and publish. If an item cannot be stored, or not in time, go on by halves.

        So the next transaction begins when this one is published: `seq` rises in TLIM_OUT, and neighbours of what is
        slow need not wait until it is found.
        """
        if not items:
            return
        try:
            plan = await self._commit(items)
        except ItemRefused as refusal:
            if len(items) == 1:
                outcome.reasons.append(str(refusal))
                if isinstance(items[0], SessionEvent):
                    await self._count_as_applied(items[0])
                return
            await self._store_halves(items, outcome)
            return
        except StatementTooSlow:
            if not self._may_go_on(items, outcome):
                raise
            if len(items) == 1:
                self._refuse_slow(items, outcome)
            else:
                await self._store_halves(items, outcome)
            return
        await self._publish(items, plan.events)
        self._counters.stored(Counter(row.msg_type for row in plan.writes.rows))
        outcome.reasons += [None] * len(items)
        await self._tell_slow(outcome)

    async def _count_as_applied(self, refused: SessionEvent) -> None:
        """Note its change all the same. Otherwise every store would ask for it again, and refuse it again."""
        async with self._archive.transaction():
            seqs = await self._archive.draw(1)
            await self._publication.follow(seqs)
            await self._archive.note_applied([refused.change])
        await self._publication.publish(())

    async def _store_halves(self, items: Sequence[Item], outcome: Outcome) -> None:
        middle = len(items) // 2
        await self._store(items[:middle], outcome)
        await self._store(items[middle:], outcome)

    def _may_go_on(self, items: Sequence[Item], outcome: Outcome) -> bool:
        """Tell whether others may go on without the message that is slow, and remember it when it is alone."""
        outcome.too_slow += 1
        if len(items) == 1:
            if isinstance(items[0], SessionEvent):
                return False  # nobody would send it again, and what follows depends on it
            if outcome.too_slow > 1:  # others were stored without it; the first cancellation may be a stall of 8 s
                outcome.slow.add(_key_of(items[0]))
                self._slow[_key_of(items[0])] = True
        return outcome.too_slow <= MAX_TOO_SLOW

    @contextmanager
    def _slow_remembered(self, outcome: Outcome) -> Iterator[None]:
        """Remember what was too slow from now on if the batch has to come again."""
        try:
            yield
        except Unavailable:
            self._slow.update(dict.fromkeys(outcome.slow, True))
            raise

    def _is_known_as_slow(self, item: Item) -> bool:
        return isinstance(item, ArrivedMessage) and _key_of(item) in self._slow

    def _refuse_slow(self, items: Sequence[Item], outcome: Outcome) -> None:
        for item in items:
            if isinstance(item, ArrivedMessage):
                # the trace of the message, and not of the batch
                trace = trace_of(item.traceparent)
                logger.warning("too slow to be stored", sender=item.sender, msg_id=item.envelope.msg_id, **trace)
                outcome.refused.append(item)
                outcome.reasons.append(None)

    async def _tell_slow(self, outcome: Outcome) -> None:
        """Tell senders to send again what the database did not store in time, so that all others need not wait.

        This comes after something else was stored, or at the end. If the batch is given up, it is stored later.
        """
        refused, outcome.refused = outcome.refused, []
        if refused:
            error = TlimError(ErrorCode.UNAVAILABLE, "it takes too long to store, try again")
            async with self._archive.transaction():
                seqs = await self._archive.draw(1)  # their place in the order of what is published
                await self._publication.follow(seqs)
            await self._publish(refused, [refusal_of(item, error, seqs[0] - 1) for item in refused])

    async def _commit(self, items: Sequence[Item]) -> Plan:
        """Survey, plan and write; do all of it again if somebody else has written since the survey."""
        for _ in range(MAX_OUTDATED):
            with suppress(SurveyOutdated):
                return await self._write_what_holds(items)
        return await self._write_what_holds(items)

    async def _write_what_holds(self, items: Sequence[Item]) -> Plan:
        for _ in range(MAX_OVERTAKEN):
            with suppress(OthersWereFaster):
                return await self._survey_and_write(items)
        return await self._survey_and_write(items)

    async def _survey_and_write(self, items: Sequence[Item]) -> Plan:
        """Look up and ask before the log is locked, then write.

        Session-api is asked, and the plan made again, while a sender would be refused because of a session.
        """
        known = await self._survey.of(items)
        while (plan := await self._write(items, known)).doubts:
            known.answers = {**known.answers, **await self._directory.sessions(plan.doubts)}
        return plan

    async def _write(self, items: Sequence[Item], known: Known) -> Plan:
        """Write what the plan says. While it has doubts nothing is written: nobody is asked under the lock."""
        with self._rosters_in_doubt():
            async with self._archive.transaction():
                await self._require_valid(known)
                seqs = await self._archive.draw(len(items) + len(known.answers))  # an answer may become a notice
                plan = self._decide(known, seqs, items)
                if plan.doubts:
                    return plan
                await self._archive.write(plan.writes)
                await self._publication.follow(seqs)
                if plan.changes:
                    await self._archive.note_applied(plan.changes)
        self._rosters.keep(plan.rosters)
        return plan

    async def _require_valid(self, known: Known) -> None:
        """Raise OthersWereFaster if another store has changed what was looked up and what no unique key protects.

        These are the members of sessions, and messages that are recalled now. Under the lock nobody changes them.
        """
        versions = {one: known.rosters[one].version if one in known.rosters else None for one in known.sessions}
        if versions and (changed := await self._archive.changed_sessions(versions)):
            raise OthersWereFaster("sessions were changed", changed)
        shared = {seq for seqs in (known.shared or {}).values() for seq in seqs}
        if shared and await self._archive.any_recalled(shared):
            raise OthersWereFaster("a message with a file was recalled")

    def _decide(self, known: Known, seqs: Sequence[int], items: Sequence[Item]) -> Plan:
        before = seqs[0] - 1  # everything up to there is published before this batch
        plan = Plan(
            known, seqs, newest=before, now=self._now(), recall_window=self._recall_window,
            read_to_all=self._read_to_all,
        )  # fmt: skip
        try:
            plan.run(items)
        except Exception as error:  # a mistake of ours: the same batch would fail for ever, and all others behind it
            first = [item for item in items if isinstance(item, ArrivedMessage)][:NAMED_IN_LOG]
            msg_ids, traces = [one.envelope.msg_id for one in first], traces_of(one.traceparent for one in first)
            logger.exception("the rules fail on a batch", items=len(items), msg_ids=msg_ids, **traces)
            raise ItemRefused(f"the rules fail on it: {type(error).__name__}") from error
        return plan

    @contextmanager
    def _rosters_in_doubt(self) -> Iterator[None]:
        try:
            yield
        except OthersWereFaster as faster:
            self._rosters.forget(faster.session_ids)  # nothing was written
            raise
        except BaseException:
            self._rosters.clear()  # we cannot know whether the transaction was committed
            raise
