"""Read receipts of a large group on real tables: gathered, and told also when the store dies before it tells."""

from typing import Any

from message_store.settings import Settings
from tlim_protocol.registry import MsgType
from tlim_protocol.streams import StreamName

READ_TO_ALL = Settings.model_fields["read_to_all"].default
READERS = [f"reader{number:03}" for number in range(READ_TO_ALL)]


def reading(accepted: Any, reader: str, *msg_ids: str) -> Any:
    body = [{"session_id": "s1", "msg_id": msg_id} for msg_id in msg_ids]
    return accepted(f"{reader} read {msg_ids}", reader, None, MsgType.READ, body=body)


async def say(world: Any, accepted: Any, session_event: Any, *msg_ids: str) -> None:
    """Let alice write into a group that is larger than those in which all hear who has read."""
    await world.announce(session_event("s1", 1, "alice", *READERS))
    for msg_id in msg_ids:
        body = [{"session_id": "s1", "text": msg_id}]
        await world.send(accepted(msg_id, "alice", None, MsgType.GROUP_TEXT, body=body))


async def told(world: Any) -> list[Any]:
    return [event for event in await world.deliveries() if event.envelope.msg_type is MsgType.READ]


def readers_of(events: Any, msg_id: str) -> list[str]:
    elements = [one for event in events for one in event.envelope.body if one["msg_id"] == msg_id]
    return [reader["user_id"] for one in elements for reader in one["readers"]]


async def test_the_author_hears_of_all_readers_at_once_and_finds_them_in_the_log(
    world: Any, accepted: Any, session_event: Any, eventually: Any
) -> None:
    await say(world, accepted, session_event, "m1", "m2")
    await world.send(*(reading(accepted, reader, "m1", "m2") for reader in READERS[:50]))
    async with world.running():

        async def all_is_told() -> None:
            assert sorted(readers_of(await told(world), "m1")) == READERS[:50]

        await eventually(all_is_told)
    events = await told(world)
    assert sorted(readers_of(events, "m2")) == READERS[:50]
    assert {tuple(event.recipients) for event in events} == {("alice",)}
    assert len(events) < 10
    rows = [row for row in await world.rows() if row["recipient"] == "alice"]
    assert [(row["seq"], row["sender"], row["msg_type"]) for row in rows] == [
        (event.seq, "", MsgType.READ) for event in events
    ]
    assert await world.sql("SELECT * FROM untold_reads") == []


async def test_what_was_recorded_and_not_told_when_the_store_died_is_told_after_the_restart(
    world: Any, accepted: Any, session_event: Any, start_store: Any, eventually: Any
) -> None:
    await say(world, accepted, session_event, "m1")
    store = start_store(world)
    for sent, reader in enumerate(READERS[:100], 1):
        await world.send(reading(accepted, reader, "m1"))
        if sent % 40:
            continue

        async def are_recorded(count: int = sent) -> None:
            assert (await world.sql("SELECT count(*) FROM receipts"))[0][0] == count

        await eventually(are_recorded)
        store.kill()
        store.start()

    async def all_is_told() -> None:
        assert sorted(set(readers_of(await told(world), "m1"))) == READERS[:100]

    await eventually(all_is_told)
    seqs = [event.seq for event in await told(world)]
    assert seqs == sorted(set(seqs))


async def test_a_gathered_receipt_that_the_stream_lost_is_published_again_as_it_was(
    world: Any, accepted: Any, session_event: Any, eventually: Any
) -> None:
    await say(world, accepted, session_event, "m1")
    await world.send(reading(accepted, READERS[0], "m1"))

    async def is_told() -> None:
        (event,) = await told(world)
        assert readers_of([event], "m1") == READERS[:1]

    async with world.running():
        await eventually(is_told)
    before = await told(world)
    await world.recreate_stream(StreamName.OUT)
    async with world.running():
        await eventually(is_told)
    assert await told(world) == before
