"""Who may download a file, asked over NATS while the database is in trouble."""

import asyncio
from typing import Any

import asyncpg
import pytest
from message_store.reading.file_access_repository import FileAccess
from message_store.subscribers import GRANTS_AT_ONCE
from tlim_protocol.events import FileQuestion, FileVerdict
from tlim_protocol.subjects import Rpc
from tlim_runtime.outages import BrokerUnavailable

QUESTION = FileQuestion(file_id="f1", user_id="alice").to_bytes()


async def test_questions_of_an_outage_are_not_answered_after_it(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    looked_up: list[str] = []
    verdict = FileAccess.verdict

    async def counted(self: FileAccess, file_id: str, user_id: str) -> FileVerdict:
        looked_up.append(file_id)
        return await verdict(self, file_id, user_id)

    monkeypatch.setattr(FileAccess, "verdict", counted)
    blocker = await asyncpg.connect(world.database_url.replace("+asyncpg", ""))
    try:
        async with world.running():
            async with blocker.transaction():
                await blocker.execute("LOCK TABLE message_files IN ACCESS EXCLUSIVE MODE")
                asked = [world.file_api.request(Rpc.MESSAGE_GRANTS, QUESTION, timeout_s=3) for _ in range(50)]
                outcomes = await asyncio.gather(*asked, return_exceptions=True)
                assert [type(outcome) for outcome in outcomes if not isinstance(outcome, BrokerUnavailable)] == []
            await world.file_api.request(Rpc.MESSAGE_GRANTS, QUESTION, timeout_s=30)
    finally:
        await blocker.close()
    # some may have had their turn just before their time was over
    assert len(looked_up) <= 2 * GRANTS_AT_ONCE + 1
