"""Who may read a file."""

from typing import Any

import pytest_asyncio
from tlim_protocol.errors import ErrorCode
from tlim_protocol.events import FileQuestion, FileVerdict
from tlim_protocol.registry import MsgType
from tlim_protocol.subjects import Rpc, subject_out


@pytest_asyncio.fixture
async def file_id(world: Any) -> str:
    async with world.client("alice") as alice:
        answer = await alice.post("/v1/files", content=b"for bob's eyes")
    identifier: str = answer.json()["file_id"]
    return identifier


async def status(world: Any, user_id: str, file_id: str) -> int:
    async with world.client(user_id) as client:
        answer = await client.get(f"/v1/files/{file_id}")
    code: int = answer.status_code
    return code


async def grants(world: Any) -> set[tuple[str, str]]:
    return {(row["file_id"], row["user_id"]) for row in await world.rows("SELECT * FROM grants")}


async def test_whom_a_stored_message_names_may_read(world: Any, eventually: Any, file_id: str) -> None:
    await world.store_message(1, "alice", ["bob"], file_id)
    await eventually(world.grants_are_read)
    assert await status(world, "bob", file_id) == 200
    assert await grants(world) == {(file_id, "bob")}
    assert world.store.questions == []


async def test_a_stranger_hears_the_same_as_for_a_file_that_does_not_exist(world: Any, file_id: str) -> None:
    answers = []
    async with world.client("mallory") as mallory:
        for wanted in (file_id, "0" * 32):
            for method, path in (
                ("GET", f"/v1/files/{wanted}"), ("HEAD", f"/v1/files/{wanted}"), ("GET", f"/v1/files/{wanted}/info"),
                ("GET", f"/p/upload/mobileFileDownload?fileId={wanted}"),
            ):  # fmt: skip
                answer = await mallory.request(method, path, headers={"Range": "bytes=999999-"})
                answers.append((answer.status_code, answer.content))
    assert answers[:4] == answers[4:]
    assert [code for code, _ in answers[:4]] == [404, 404, 404, 200]
    assert ErrorCode.FILE_UNKNOWN.encode() in answers[3][1]


async def test_a_stranger_cannot_tell_them_apart_by_an_outage_either(world: Any, file_id: str) -> None:
    await world.store_broker.close()
    assert await status(world, "mallory", file_id) == 503
    assert await status(world, "mallory", "0" * 32) == 503
    assert await status(world, "alice", file_id) == 200


async def test_a_sender_who_may_not_read_gives_nobody_anything(world: Any, eventually: Any, file_id: str) -> None:
    await world.store_message(1, "mallory", ["mallet"], file_id)
    await world.store_message(2, "mallory", ["mallet"], "0" * 32)
    await world.store_message(3, "mallory", ["mallet"], "no id")
    await eventually(world.grants_are_read)
    assert await status(world, "mallet", file_id) == 404
    assert await grants(world) == set()


async def test_a_file_can_be_forwarded_also_within_one_batch(world: Any, eventually: Any, file_id: str) -> None:
    await world.store_message(1, "alice", ["bob", "bill"], file_id)
    await world.store_message(2, "bob", ["carol"], file_id)
    await eventually(world.grants_are_read)
    assert await grants(world) == {(file_id, "bob"), (file_id, "bill"), (file_id, "carol")}


async def test_the_same_message_twice_changes_nothing(world: Any, eventually: Any, file_id: str) -> None:
    for seq in (1, 2):
        await world.store_message(seq, "alice", ["bob"], file_id)
        await eventually(world.grants_are_read)
    assert await grants(world) == {(file_id, "bob")}


async def test_a_grant_not_yet_seen_is_asked_for_before_anybody_is_refused(world: Any, file_id: str) -> None:
    world.store.sent = {(file_id, "carol"): ["mallory", "bob"], (file_id, "bob"): ["alice"]}
    assert await status(world, "carol", file_id) == 200
    assert await grants(world) == {(file_id, "bob"), (file_id, "carol")}
    asked = len(world.store.questions)
    assert await status(world, "carol", file_id) == 200
    assert len(world.store.questions) == asked


async def test_people_who_sent_it_in_a_circle_get_nothing(world: Any, file_id: str) -> None:
    world.store.sent = {(file_id, "mallory"): ["mallet"], (file_id, "mallet"): ["mallory"]}
    assert await status(world, "mallory", file_id) == 404


async def test_others_may_ask_who_may_read(world: Any, file_id: str) -> None:
    async def allowed(user_id: str) -> bool:
        question = FileQuestion(file_id=file_id, user_id=user_id)
        return FileVerdict.from_bytes(await world.tests.request(Rpc.FILE_CHECK, question.to_bytes())).allowed

    assert [await allowed(user_id) for user_id in ("alice", "mallory")] == [True, False]


async def test_nonsense_among_the_messages_is_put_aside_and_stops_nobody(
    world: Any, eventually: Any, file_id: str
) -> None:
    await world.tests.publish(subject_out(MsgType.IMAGE, "u:a:b"), b"nonsense", "nonsense-1")
    await world.store_message(1, "alice", ["bob"], file_id)
    await eventually(world.grants_are_read)
    assert await world.dead_letters() == [b"nonsense"]
    assert await grants(world) == {(file_id, "bob")}
