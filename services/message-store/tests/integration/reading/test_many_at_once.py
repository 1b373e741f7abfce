"""One person's reading, however much of it at once, neither stops the store nor takes other readers' places."""

import asyncio
from collections import Counter
from typing import Any

import asyncpg
from message_store.app import create_app
from tlim_protocol.events import SeqsAnswer, SeqsQuestion
from tlim_protocol.subjects import Rpc
from tlim_runtime.turns import WAITING

AT_ONCE = 3
MANY = 40


async def test_forty_syncs_of_one_person_hold_nobody_else_up(
    world: Any, accepted: Any, eventually: Any, open_http: Any
) -> None:
    app = create_app(world.settings(database_pool_size=AT_ONCE + 1, requests_at_once_per_user=AT_ONCE))
    blocker = await asyncpg.connect(world.database_url.replace("+asyncpg", ""))

    async def reads_that_wait() -> None:
        waiting = (
            "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
        )
        assert (await world.sql(waiting))[0][0] == AT_ONCE

    async with world.running(app), open_http(app) as http:
        await world.send(accepted("before"))
        await world.settled(1)
        blocking = blocker.transaction()
        await blocking.start()
        await blocker.execute("LOCK TABLE addressees IN ACCESS EXCLUSIVE MODE")  # sync looks there, nobody else
        syncs = [asyncio.create_task(http.get("alice", "sync")) for _ in range(MANY)]
        await eventually(reads_that_wait)

        await world.send(accepted("meanwhile"))
        await world.settled(2)
        answer = await world.bridge.request(Rpc.MESSAGE_RECALLED, SeqsQuestion(seqs=[1]).to_bytes())
        assert SeqsAnswer.from_bytes(answer).seqs == []
        assert len((await http.read("bob", "conversations/alice/messages"))["messages"]) == 2
        assert (await http.client.get("/readyz")).status_code == 200
        refused = [sync.result() for sync in syncs if sync.done()]
        assert [answer.status_code for answer in refused] == [429] * (MANY - AT_ONCE - WAITING)
        assert (refused[0].json()["code"], refused[0].headers["Retry-After"]) == ("error-017", "1")

        await blocking.rollback()
        statuses = Counter([(await sync).status_code for sync in syncs])
        assert statuses == {200: AT_ONCE + WAITING, 429: MANY - AT_ONCE - WAITING}
    await blocker.close()
