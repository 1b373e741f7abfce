"""Table and stream after every kind of crash between them: nothing is lost, order stays, no replay of history."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from typing import Any

import asyncpg
import pytest
from message_store import service
from message_store.archive_repository import Archive
from message_store.directory import ServiceDirectory
from message_store.gathering import Gathering
from message_store.metrics import StoreMetrics
from message_store.plan import Plan
from message_store.publication import LOSS_WINDOW_MS, Publication
from message_store.service import Recorder
from message_store.values import DeliveredRow, Known, Writes
from tlim_protocol.registry import MsgType
from tlim_protocol.streams import StreamName
from tlim_runtime.broker import Outgoing
from tlim_runtime.metrics import Metrics
from tlim_runtime.outages import BrokerUnavailable, DatabaseUnavailable


def delivered(events: Any) -> list[str]:
    return [event.envelope.msg_id for event in events]


@asynccontextmanager
async def opened_archive(world: Any, kind: type[Archive] = Archive) -> AsyncIterator[Any]:
    connection = await asyncpg.connect(world.database_url.replace("+asyncpg", ""))
    try:
        yield kind(connection)
    finally:
        await connection.close()


async def commit_only(world: Any, *messages: Any, stored_at: int = 1_700_000_000_000) -> None:
    """What a store does that is killed right after the commit."""
    async with opened_archive(world) as archive, archive.transaction():
        existing = await archive.conversations({message.envelope.conversation_id for message in messages})
        known = Known(conversations=existing, users={message.envelope.msg_to for message in messages})
        plan = Plan(known, await archive.draw(len(messages)), newest=0, now=stored_at, recall_window=0, read_to_all=200)
        plan.run(messages)
        await archive.write(plan.writes)


async def test_what_was_committed_and_not_published_is_published_first_after_a_start(world: Any, accepted: Any) -> None:
    messages = [accepted(f"m{i}") for i in range(3)]
    await world.send(*messages, accepted("m3"))
    await commit_only(world, *messages)
    async with world.running():
        await world.settled(4)
    assert delivered(await world.deliveries()) == ["m0", "m1", "m2", "m3"]
    confirmed = [event.envelope.msg_id for event in await world.out() if event.reply_to is not None]
    assert sorted(confirmed) == ["m0", "m1", "m2", "m3"]


async def test_a_restart_publishes_nothing_again(world: Any, accepted: Any) -> None:
    for batch in ("a", "b"):
        async with world.running():
            await world.send(accepted(f"{batch}1"), accepted(f"{batch}2"))
            await world.settled(2 if batch == "a" else 4)
    assert delivered(await world.out()) == ["a1", "a2", "b1", "b2"]


async def test_confirmations_of_old_messages_at_the_end_of_the_stream_replay_nothing(
    world: Any, accepted: Any, eventually: Any
) -> None:
    world.directory.strangers.add("nobody")
    async with world.running():
        await world.send(*(accepted(f"m{i}") for i in range(20)))
        await world.settled(20)
        await world.send(accepted("no", to="nobody"))
        await world.send(accepted("m0", received_at=5), accepted("m1", received_at=5))
        await world.settled(20)
    await world.forget_duplicates()
    async with world.running() as app:
        await eventually(lambda: _ready(app))
    assert [event.reply_to is None for event in await world.out()] == [False] * 23


async def test_resends_at_the_end_of_the_stream_are_not_gone_through_one_by_one(
    world: Any, accepted: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world.running():
        await world.send(accepted("m1"), accepted("m2"))
        await world.settled(2)
        for number in range(10):
            await world.send(accepted("m1", received_at=number))
        await world.settled(2)
    looked_at: list[int] = []
    broker = await world.connect("message-store")
    ask = broker.api

    async def api(subject: str, **request: Any) -> Any:
        if subject.startswith("STREAM.MSG.GET"):
            looked_at.append(request["seq"])
        return await ask(subject, **request)

    monkeypatch.setattr(broker, "api", api)
    async with opened_archive(world) as archive:
        await Publication(archive, broker, StoreMetrics(Metrics())).restore()
    assert looked_at == [14]  # two pieces for each of the two


async def test_a_lost_stream_gets_what_is_young_and_not_the_whole_history(
    world: Any, accepted: Any, eventually: Any
) -> None:
    async with world.running():
        await world.send(*(accepted(f"m{i}") for i in range(6)))
        await world.settled(6)
    await world.sql(
        "UPDATE messages SET stored_at = stored_at - $1 WHERE msg_id = ANY($2::text[])",
        LOSS_WINDOW_MS + 1_000, ["m0", "m1", "m2"],
    )  # fmt: skip
    await world.recreate_stream(StreamName.OUT)
    async with world.running():

        async def repaired() -> None:
            assert delivered(await world.out()) == ["m3", "m4", "m5"]

        await eventually(repaired)


async def test_a_stream_that_lost_its_tail_gets_it_again(
    own_world: Any, restartable_nats: Any, accepted: Any, eventually: Any
) -> None:
    async with own_world.running():
        await own_world.send(*(accepted(f"m{i}") for i in range(3)))
        await own_world.settled(3)
        restartable_nats.stop()
        restartable_nats.keep_state()
        restartable_nats.start()
        await own_world.broker_is_back()
        await own_world.send(*(accepted(f"m{i}") for i in range(3, 6)))
        await own_world.settled(6)
        restartable_nats.stop()
        restartable_nats.lose_everything_since_kept()
        restartable_nats.start()

        async def repaired() -> None:
            assert delivered(await own_world.deliveries()) == ["m0", "m1", "m2", "m3", "m4", "m5"]

        await eventually(repaired)
        await own_world.broker_is_back()  # only `tests` had to be for what was repaired
        await own_world.send(accepted("m6"))
        await own_world.settled(7)
    assert delivered(await own_world.deliveries())[-1] == "m6"


async def test_a_stream_that_lost_some_pieces_of_a_message_gets_them_again(
    own_world: Any, restartable_nats: Any, accepted: Any, session_event: Any, eventually: Any
) -> None:
    """The first pieces are there. They do not mean that all recipients have theirs."""
    people = ["alice", "bob", "carol", "dave", "leo", "mia"]
    body = [{"session_id": "s1", "text": "hello"}]
    async with own_world.running():
        await own_world.announce(session_event("s1", 1, *people))
        await own_world.settled(1)
        await own_world.send(accepted("m1", to=None, msg_type=MsgType.GROUP_TEXT, body=body))
        await own_world.settled(2)
    state = await own_world.tests.stream_state(StreamName.OUT)
    for lost in (state.last_seq, state.last_seq - 1):
        await own_world.tests.answered(f"STREAM.MSG.DELETE.{StreamName.OUT}", seq=lost)
    restartable_nats.stop()  # so that it forgets the ids of what is lost
    restartable_nats.start()
    await own_world.broker_is_back()

    async def who_has_a_piece() -> list[str]:
        pieces = [piece for piece in await own_world.pieces() if piece.envelope.msg_id == "m1"]
        return sorted(one for piece in pieces for one in piece.recipients)

    async def all_have_one() -> None:
        assert await who_has_a_piece() == people[1:]

    assert len(await who_has_a_piece()) < len(people) - 1
    async with own_world.running():
        await eventually(all_have_one)


async def test_an_idle_store_that_starts_anew_publishes_nothing_again(
    world: Any, accepted: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world.running():
        await world.send(accepted("m1"))
        await world.settled(1)
    published: list[Any] = []
    broker = await world.connect("message-store")

    async def publish_batch(items: Sequence[Outgoing]) -> None:
        published.extend(items)

    monkeypatch.setattr(broker, "publish_batch", publish_batch)
    async with opened_archive(world) as archive:
        await Publication(archive, broker, StoreMetrics(Metrics())).restore()
    assert published == []


async def test_a_stream_trimmed_up_to_a_confirmation_that_lost_its_tail_gets_it_again(
    own_world: Any, restartable_nats: Any, accepted: Any, eventually: Any
) -> None:
    async with own_world.running():
        await own_world.send(accepted("m0"), accepted("m1"))
        await own_world.settled(2)
        await own_world.send(accepted("m0", received_at=5))
        await own_world.settled(2)
        state = await own_world.tests.stream_state(StreamName.OUT)
        await own_world.tests.answered(f"STREAM.PURGE.{StreamName.OUT}", seq=state.last_seq)
        assert await own_world.deliveries() == []
        restartable_nats.stop()
        restartable_nats.keep_state()
        restartable_nats.start()
        await own_world.broker_is_back()
        await own_world.send(accepted("m2"), accepted("m3"))
        await own_world.settled(4)
        restartable_nats.stop()
        restartable_nats.lose_everything_since_kept()
        restartable_nats.start()

        async def repaired() -> None:
            assert delivered(await own_world.deliveries()) == ["m2", "m3"]

        await eventually(repaired)


async def test_a_publish_that_fails_midway_is_completed_in_order(world: Any, accepted: Any, eventually: Any) -> None:
    await world.limit_stream(StreamName.OUT, max_msgs=8)  # two pieces each
    await world.send(*(accepted(f"m{i}") for i in range(10)))
    async with world.running():

        async def is_stuck() -> None:
            assert len(await world.rows()) == 10
            assert len(await world.out()) == 4

        await eventually(is_stuck)
        await world.limit_stream(StreamName.OUT, max_msgs=-1)
        await world.settled(10)
    assert delivered(await world.deliveries()) == [f"m{i}" for i in range(10)]
    confirmed = {event.envelope.msg_id for event in await world.out() if event.reply_to is not None}
    assert confirmed == {f"m{i}" for i in range(10)}


async def test_a_repair_that_lacks_a_row_and_ends_early_is_done_again_from_its_beginning(
    world: Any, accepted: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world.running():
        await world.send(*(accepted(f"m{i}") for i in range(3)))
        await world.settled(3)
    await world.recreate_stream(StreamName.OUT)
    broker = await world.connect("message-store")
    publish = broker.publish_batch

    async def refuse_some(items: Sequence[Outgoing]) -> None:
        await publish([item for item in items if not item.message_id.startswith("seq:2:")])
        raise BrokerUnavailable("the stream was full for a moment")

    monkeypatch.setattr(broker, "publish_batch", refuse_some)
    async with opened_archive(world) as archive:
        with pytest.raises(BrokerUnavailable):
            await Publication(archive, broker, StoreMetrics(Metrics())).restore()
        monkeypatch.undo()
        await Publication(archive, broker, StoreMetrics(Metrics())).restore()
    assert set(delivered(await world.deliveries())) == {"m0", "m1", "m2"}


async def publish_nothing(archive: Archive, publication: Publication) -> None:
    """What a store does with a transaction that only draws a seq."""
    async with publication.turn():
        async with archive.transaction():
            await publication.follow(await archive.draw(1))
        await publication.publish([])


async def test_nothing_new_is_published_between_a_broken_connection_and_the_repair(world: Any, accepted: Any) -> None:
    async with opened_archive(world) as archive:
        publication = Publication(archive, await world.connect("message-store"), StoreMetrics(Metrics()))
        await publication.restore()
        publication.doubt()
        with pytest.raises(BrokerUnavailable):
            await publish_nothing(archive, publication)
        assert await archive.published() == 0
        await commit_only(world, accepted("m1"))
        await publication.restore()
        await publish_nothing(archive, publication)
        assert await archive.published() == 3  # two seqs were drawn for nothing
    assert delivered(await world.out()) == ["m1"]


async def test_a_store_that_gathers_receipts_before_it_has_compared_does_not_forget_what_is_published(
    world: Any, accepted: Any, session_event: Any
) -> None:
    readers = [f"reader{number:03}" for number in range(300)]
    async with world.running():
        await world.announce(session_event("s1", 1, "alice", *readers))
        body = [{"session_id": "s1", "text": "hi"}]
        await world.send(accepted("m1", "alice", None, MsgType.GROUP_TEXT, body=body))
        await world.settled(2)
    before = await world.out()
    async with opened_archive(world) as archive:
        publication = Publication(archive, await world.connect("message-store"), StoreMetrics(Metrics()))
        gathering = Gathering(archive, publication, int)
        await world.sql("INSERT INTO untold_reads SELECT seq, 'reader001' FROM messages WHERE msg_id = 'm1'")
        with suppress(BrokerUnavailable):
            await gathering.tell()
        await world.forget_duplicates()
        await gathering.tell()
    told = (await world.out())[len(before) :]
    assert [event.envelope.msg_type for event in told] == [MsgType.READ]


class _FailsAt(Archive):
    """An archive whose database gives up a statement, once, and lives on."""

    fails_at = 0

    async def write(self, writes: Writes) -> None:
        self._count()
        await super().write(writes)

    async def messages_after(self, seq: int, limit: int, before: int) -> list[DeliveredRow]:
        self._count()
        return await super().messages_after(seq, limit, before)

    def _count(self) -> None:
        self.fails_at -= 1
        if self.fails_at == 0:
            raise DatabaseUnavailable("canceling statement due to statement timeout")


async def test_a_portion_that_is_committed_before_the_next_one_fails_is_published_before_what_follows(
    world: Any, session_event: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "MAX_NAMED", 2)
    async with opened_archive(world, _FailsAt) as archive:
        broker, metrics = await world.connect("message-store"), StoreMetrics(Metrics())
        publication = Publication(archive, broker, metrics)
        recorder = Recorder(
            archive,
            ServiceDirectory(broker, timedelta()),
            publication,
            metrics,
            now=int,
            recall_window=0,
            read_to_all=200,
        )
        await publication.restore()
        changes = [session_event(f"s{number}", 1, "alice", "bob", change=number) for number in (1, 2)]
        archive.fails_at = 2
        with pytest.raises(DatabaseUnavailable):
            await recorder.record(changes)
        with pytest.raises(BrokerUnavailable):
            await recorder.record(changes[1:])
        archive.fails_at = 1
        with pytest.raises(DatabaseUnavailable):
            await publication.restore()
        with pytest.raises(BrokerUnavailable):
            await recorder.record(changes[1:])
        await publication.restore()
        await recorder.record(changes[1:])
    assert [event.envelope.body[0]["session_id"] for event in await world.out()] == ["s1", "s2"]


async def test_what_is_published_is_written_down(world: Any, accepted: Any, eventually: Any) -> None:
    async with world.running():
        await world.send(accepted("m1"))
        await world.settled(1)

        async def noted() -> None:
            ((seq,),) = await world.sql("SELECT published_seq FROM publication")
            assert seq == (await world.rows())[0]["seq"]

        await eventually(noted)


async def _ready(app: Any) -> None:
    checks = await app.state.health.check()
    assert set(checks.values()) == {"ok"}, checks
