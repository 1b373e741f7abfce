"""A service that takes questions and never answers slows down nobody whose message does not need it."""

import asyncio
from typing import Any

from message_store.locks import SEQ_LOCK
from tlim_protocol.errors import ErrorCode
from tlim_protocol.events import SessionsQuestion, UserMeet, UsersKnown
from tlim_protocol.registry import MsgType
from tlim_protocol.subjects import Rpc


async def test_a_session_api_that_hangs_is_asked_by_one_batch_of_several(
    world: Any, accepted: Any, eventually: Any
) -> None:
    asked: set[str] = set()
    over = asyncio.Event()

    async def never(data: bytes) -> bytes:
        asked.update(SessionsQuestion.from_bytes(data).session_ids)
        await over.wait()
        return b""

    await world.stop_directory()
    stuck = await world.connect("session-api")
    await stuck.respond(Rpc.SESSION_GET, never, "session-api")

    def to_session(number: int) -> Any:
        body = [{"session_id": f"random{number}", "text": "hi"}]
        return accepted(f"m{number}", "mallory", None, MsgType.GROUP_TEXT, body=body)

    async with world.running(user_lookup_timeout="PT0.2S") as app:

        async def fails_for_some_time() -> None:
            work = {"work": "services that hang"}
            assert app.state.metrics.registry.get_sample_value("tlim_work_failing_seconds", work) > 0

        for number in range(3):
            await world.send(to_session(number))

            async def refused(number: int = number) -> None:
                told = [(event.msg_id, event.code) for event in await world.out()]
                assert (f"m{number}", ErrorCode.UNAVAILABLE) in told

            await eventually(refused)
        await eventually(fails_for_some_time)
        red = [name for name, outcome in (await app.state.health.check()).items() if outcome != "ok"]
        assert red == ["deactivated users"], "it has started without session-api; the rest goes on"
    over.set()
    assert asked - {""} == {"random0"}


async def test_the_log_is_not_locked_while_a_service_is_asked(world: Any, accepted: Any, eventually: Any) -> None:
    asked, over = asyncio.Event(), asyncio.Event()

    async def late(data: bytes) -> bytes:
        asked.set()
        await over.wait()
        return UsersKnown(known=UserMeet.from_bytes(data).ask).to_bytes()

    await world.stop_directory()
    slow = await world.connect("session-api")
    await slow.respond(Rpc.USER_MEET, late, "session-api")
    async with world.running(user_lookup_timeout="PT60S"):
        await world.send(accepted("m1"))
        await asked.wait()
        assert await world.sql("SELECT pg_try_advisory_xact_lock($1)", SEQ_LOCK) == [(True,)]
        over.set()

        async def stored() -> None:
            assert [event.envelope.msg_id for event in await world.out()] == ["m1"]

        await eventually(stored)
