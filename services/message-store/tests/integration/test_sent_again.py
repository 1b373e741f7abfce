"""A dead letter that goes its way again into TLIM_OUT is old: the store does not take it for the newest event."""

import base64
from typing import Any

import pytest
from message_store.operate.dead_letters import DeadLetterBox
from tlim_protocol.dead_letters import SUBJECT_HEADER
from tlim_protocol.events import StoredMessage, read_out_event
from tlim_protocol.streams import StreamName
from tlim_protocol.subjects import subject_dead


async def payloads(world: Any) -> list[bytes]:
    """Everything in TLIM_OUT, as it is."""
    state = await world.tests.stream_state(StreamName.OUT)
    places = range(max(state.first_seq, 1), state.last_seq + 1)
    found = [await world.tests.api(f"STREAM.MSG.GET.{StreamName.OUT}", seq=place) for place in places]
    return [base64.b64decode(one["message"]["data"]) for one in found if "message" in one]


def told(events: list[bytes]) -> list[str]:
    """The messages that these events deliver."""
    read = map(read_out_event, events)
    return [event.envelope.msg_id for event in read if isinstance(event, StoredMessage) and event.recipients]


async def ready(app: Any) -> None:
    checks = await app.state.health.check()
    assert set(checks.values()) == {"ok"}, checks


async def subject_of_first(world: Any) -> str:
    first = await world.tests.answered(f"STREAM.MSG.GET.{StreamName.OUT}", seq=1)
    return str(first["message"]["subject"])


async def send_again(world: Any, payload: bytes) -> None:
    """Make a dead letter of an event of TLIM_OUT, and have the store send it again."""
    subject = await subject_of_first(world)
    await world.tests.publish(subject_dead(subject), payload, f"dead:{len(payload)}", {SUBJECT_HEADER: subject})
    place = (await world.tests.stream_state(StreamName.DEAD)).last_seq
    assert await DeadLetterBox(await world.connect("message-store")).redrive(place) is not None


async def store(world: Any, *messages: Any) -> None:
    async with world.running():
        await world.send(*messages)
        await world.settled(len(messages))


@pytest.mark.parametrize("is_readable", [True, False])
@pytest.mark.parametrize("by_older_release", [False, True])
async def test_a_letter_that_is_sent_again_replays_nothing_and_stops_nothing(
    world: Any, accepted: Any, eventually: Any, *, is_readable: bool, by_older_release: bool
) -> None:
    await store(world, *(accepted(f"m{number}") for number in range(20)))
    before = await payloads(world)
    letter = before[0] if is_readable else b"{}"
    if by_older_release:
        await (await world.connect("message-store")).publish(await subject_of_first(world), letter, "redrive:1")
    else:
        await send_again(world, letter)
    await world.forget_duplicates()
    async with world.running() as app:
        await eventually(lambda: ready(app))
    assert await payloads(world) == [*before, letter]


async def test_an_event_in_the_stream_that_cannot_be_read_stops_nothing(
    world: Any, accepted: Any, eventually: Any
) -> None:
    await store(world, accepted("m1"))
    before = await payloads(world)
    await (await world.connect("message-store")).publish(await subject_of_first(world), b"{}", "whatever")
    async with world.running() as app:
        await eventually(lambda: ready(app))
    assert await payloads(world) == [*before, b"{}"]


async def test_what_is_lost_behind_a_letter_that_is_all_that_is_left_is_published_again(
    own_world: Any, restartable_nats: Any, accepted: Any, eventually: Any
) -> None:
    """The bridges trim the stream up to the newest event that they have acknowledged."""
    world = own_world
    await store(world, accepted("m1"))
    await send_again(world, (await payloads(world))[0])
    letter = (await world.tests.stream_state(StreamName.OUT)).last_seq
    async with world.running():
        await world.send(accepted("m2"))
        await world.settled(2)
    end = (await world.tests.stream_state(StreamName.OUT)).last_seq
    for place in range(letter + 1, end + 1):
        await world.tests.answered(f"STREAM.MSG.DELETE.{StreamName.OUT}", seq=place)
    await world.tests.answered(f"STREAM.PURGE.{StreamName.OUT}", seq=letter)
    restartable_nats.stop()  # so that it forgets the ids of what is lost
    restartable_nats.start()
    await world.broker_is_back()
    assert len(await payloads(world)) == 1
    async with world.running():

        async def repaired() -> None:
            assert told((await payloads(world))[1:]) == ["m2"]

        await eventually(repaired)


async def test_a_letter_that_is_sent_into_a_lost_stream_does_not_hide_the_loss(
    world: Any, accepted: Any, eventually: Any
) -> None:
    await store(world, accepted("m1"), accepted("m2"))
    subject, (letter, *_) = await subject_of_first(world), await payloads(world)
    await world.recreate_stream(StreamName.OUT)
    await world.tests.publish(subject_dead(subject), letter, "dead:1", {SUBJECT_HEADER: subject})
    assert await DeadLetterBox(await world.connect("message-store")).redrive(1) is not None
    async with world.running():

        async def repaired() -> None:
            assert told((await payloads(world))[1:]) == ["m1", "m2"]

        await eventually(repaired)
