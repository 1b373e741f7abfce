"""Much reading at once, of one person or of all who log in, neither stops the store nor takes others' places."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
from message_store.app import create_app
from message_store.mailbox.subscribers import MISSED_AT_ONCE
from message_store.subscribers import GRANTS_AT_ONCE
from tlim_protocol.events import FileQuestion, FileVerdict, SeqsAnswer, SeqsQuestion
from tlim_protocol.identity import delivery_shard
from tlim_protocol.mailboxes import MailboxNote, MailboxNotes, MissedAnswer, MissedQuestion
from tlim_protocol.subjects import Rpc
from tlim_runtime.turns import WAITING

AT_ONCE = 3
MANY = 40


@asynccontextmanager
async def nobody_looks_at(world: Any, table: str) -> AsyncIterator[None]:
    """Make everybody wait who reads this table: `addressees` holds what was addressed to a person."""
    blocker = await asyncpg.connect(world.database_url.replace("+asyncpg", ""))
    try:
        async with blocker.transaction():
            await blocker.execute(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE")
            yield
    finally:
        await blocker.close()


async def waiting_for_locks(world: Any) -> int:
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
    return int((await world.sql(waiting))[0][0])


async def other_questions_are_answered(world: Any) -> None:
    answer = await world.bridge.request(Rpc.MESSAGE_RECALLED, SeqsQuestion(seqs=[1]).to_bytes(), timeout_s=30)
    assert SeqsAnswer.from_bytes(answer).seqs == []
    present = MailboxNote(user_id="alice", sessions=["s1"])
    note = MailboxNotes(shard=delivery_shard("alice"), term=0, notes=[present])
    await world.bridge.request(Rpc.MAILBOX_NOTE, note.to_bytes(), timeout_s=30)


async def test_a_whole_office_that_logs_in_holds_up_no_other_question(
    world: Any, accepted: Any, eventually: Any
) -> None:
    async with world.running():
        await world.send(accepted("before"))
        await world.settled(1)
        async with nobody_looks_at(world, "addressees"):
            question = MissedQuestion(user_id="bob").to_bytes()
            asked = [
                asyncio.create_task(world.bridge.request(Rpc.MAILBOX_MISSED, question, timeout_s=60))
                for _ in range(MANY)
            ]

            async def questions_wait() -> None:
                assert await waiting_for_locks(world) == MISSED_AT_ONCE

            await eventually(questions_wait)
            await other_questions_are_answered(world)
            assert not any(task.done() for task in asked)
        answers = [MissedAnswer.from_bytes(await task) for task in asked]
    assert [len(answer.events) for answer in answers] == [1] * MANY


async def test_many_who_look_at_files_hold_up_no_other_question(world: Any, eventually: Any) -> None:
    question = FileQuestion(file_id="0" * 32, user_id="bob").to_bytes()
    async with world.running():
        async with nobody_looks_at(world, "message_files"):
            asked = [
                asyncio.create_task(world.file_api.request(Rpc.MESSAGE_GRANTS, question, timeout_s=60))
                for _ in range(MANY)
            ]

            async def questions_wait() -> None:
                assert await waiting_for_locks(world) >= GRANTS_AT_ONCE

            await eventually(questions_wait)
            await other_questions_are_answered(world)
            assert not any(task.done() for task in asked)
        verdicts = [FileVerdict.from_bytes(await task) for task in asked]
    assert not any(verdict.allowed for verdict in verdicts)


async def test_forty_syncs_of_one_person_hold_nobody_else_up(
    world: Any, accepted: Any, eventually: Any, open_http: Any
) -> None:
    app = create_app(world.settings(database_pool_size=AT_ONCE + 1, requests_at_once_per_user=AT_ONCE))

    async def reads_that_wait() -> None:
        assert await waiting_for_locks(world) == AT_ONCE

    async with world.running(app), open_http(app) as http:
        await world.send(accepted("before"))
        await world.settled(1)
        async with nobody_looks_at(world, "addressees"):
            syncs = [asyncio.create_task(http.get("alice", "sync")) for _ in range(MANY)]
            await eventually(reads_that_wait)

            await world.send(accepted("meanwhile"))
            await world.settled(2)
            answer = await world.bridge.request(Rpc.MESSAGE_RECALLED, SeqsQuestion(seqs=[1]).to_bytes(), timeout_s=30)
            assert SeqsAnswer.from_bytes(answer).seqs == []
            assert len((await http.read("bob", "conversations/alice/messages"))["messages"]) == 2
            assert (await http.client.get("/readyz")).status_code == 200
            refused = [sync.result() for sync in syncs if sync.done()]
            assert [answer.status_code for answer in refused] == [429] * (MANY - AT_ONCE - WAITING)
            assert (refused[0].json()["code"], refused[0].headers["Retry-After"]) == ("error-017", "1")

        statuses = Counter([(await sync).status_code for sync in syncs])
        assert statuses == {200: AT_ONCE + WAITING, 429: MANY - AT_ONCE - WAITING}
