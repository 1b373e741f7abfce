"""Changes of sessions that no stream brings: got at the start, when session-api is back, after a broker's restart."""

from typing import Any

from tlim_protocol.registry import MsgType
from tlim_protocol.subjects import Rpc


async def test_changes_that_were_never_heard_of_are_applied_before_the_first_message(
    world: Any, accepted: Any, session_event: Any
) -> None:
    world.directory.log = [session_event("s1", version, "alice", *others) for version, others in enumerate(
        ([], ["bob"], ["bob", "carol"]), start=1
    )]  # fmt: skip
    await world.send(accepted("m1", "bob", None, MsgType.GROUP_TEXT, body=[{"session_id": "s1", "text": "hi"}]))
    async with world.running():
        await world.settled(4)
    assert [event.recipients for event in await world.out()] == [
        ["alice"], ["alice", "bob"], ["alice", "bob", "carol"], ["alice", "carol"],
    ]  # fmt: skip
    assert not world.directory.asked_sessions
    ((change,),) = await world.sql("SELECT applied_change FROM publication")
    assert change == 3


async def test_without_session_api_messages_flow_and_its_changes_come_when_it_is_back(
    world: Any, accepted: Any, session_event: Any
) -> None:
    world.directory.log = [session_event("s1", 1, "alice", "bob")]
    async with world.running():
        await world.settled(1)
        await world.send(accepted("m1"))
        await world.settled(2)
    world.directory.log.append(session_event("s1", 2, "alice"))
    await world.stop_directory()
    async with world.running():
        await world.send(accepted("m2"))
        await world.settled(3)
        back = await world.connect("session-api")
        await back.respond(Rpc.SESSION_CHANGES, world.directory.answer_changes, "session-api")
        await world.settled(4)
    assert (await world.deliveries())[-1].recipients == ["alice", "bob"]


async def test_what_a_broker_lost_is_asked_for_when_it_is_back(
    own_world: Any, restartable_nats: Any, session_event: Any
) -> None:
    async with own_world.running():
        await own_world.announce(session_event("s1", 1, "alice"))
        await own_world.settled(1)
        restartable_nats.stop()
        own_world.directory.log = [session_event("s1", version, *people) for version, people in (
            (1, ["alice"]), (2, ["alice", "bob"]),
        )]  # fmt: skip
        restartable_nats.start()
        await own_world.broker_is_back()
        await own_world.settled(2)
    assert (await own_world.deliveries())[-1].recipients == ["alice", "bob"]


async def test_a_change_that_is_missing_between_others_is_asked_for(world: Any, session_event: Any) -> None:
    async with world.running():
        await world.announce(session_event("s1", 1, "alice"))
        await world.settled(1)
        world.directory.log = [session_event("s1", number, "alice", "bob") for number in (1, 2)]
        await world.announce(session_event("s3", 1, "carol", change=3))
        await world.settled(3)
    assert [event.envelope.msg_id for event in await world.out()] == ["s1:1", "s3:1", "s1:2"]
