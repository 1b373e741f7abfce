"""The right to read a file."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest_asyncio
from file_api.files import new_file_id
from tlim_protocol.errors import ErrorCode
from tlim_protocol.events import FileQuestion, FilesAnswer, FilesQuestion
from tlim_protocol.subjects import Rpc


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


async def test_whoever_may_see_a_message_with_the_file_may_read_it_and_only_as_long(world: Any, file_id: str) -> None:
    assert await status(world, "bob", file_id) == 404
    world.store.sees.add((file_id, "bob"))
    assert await status(world, "bob", file_id) == 200
    world.store.sees.clear()  # recalled, or bob has left the group
    assert await status(world, "bob", file_id) == 404


async def test_after_a_recall_the_uploader_does_not_read_it_either(world: Any, file_id: str) -> None:
    await check(world, (file_id, "alice"))
    assert await status(world, "alice", file_id) == 200  # sent, or about to be
    world.store.recalled.add(file_id)
    doors = ("", "/info", "/url", "/thumbnail")
    async with world.client("alice") as alice:
        answers = [await alice.get(f"/v1/files/{file_id}{door}") for door in doors]
        answers += [await alice.head(f"/v1/files/{file_id}")]
        assert [answer.status_code for answer in answers] == 5 * [404]
        assert ErrorCode.FILE_UNKNOWN in (await alice.get(f"/p/upload/mobileFileDownload?fileId={file_id}")).text
        assert (await alice.delete(f"/v1/files/{file_id}")).status_code == 204


async def test_a_file_that_is_recalled_here_and_shared_there_stays_with_those_who_see_it(
    world: Any, file_id: str
) -> None:
    await check(world, (file_id, "alice"))
    world.store.sees.add((file_id, "bob"))
    assert [await status(world, user, file_id) for user in ("alice", "bob", "carol")] == [200, 200, 404]


async def test_the_uploader_of_what_was_sent_is_not_told_that_it_is_gone_while_nobody_can_tell(
    world: Any, file_id: str
) -> None:
    await check(world, (file_id, "alice"))
    await world.store_broker.close()
    assert await status(world, "alice", file_id) == 503


async def test_nobody_is_asked_about_the_uploader_of_what_was_never_sent(world: Any, file_id: str) -> None:
    assert await status(world, "alice", file_id) == 200
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


async def test_a_message_about_a_file_that_does_not_exist_makes_none(world: Any) -> None:
    world.store.sees.add(("0" * 32, "bob"))
    assert await status(world, "bob", "0" * 32) == 404


async def check(world: Any, *asks: tuple[str, str]) -> FilesAnswer:
    question = FilesQuestion(asks=[FileQuestion(file_id=file_id, user_id=user_id) for file_id, user_id in asks])
    return FilesAnswer.from_bytes(await world.tests.request(Rpc.FILE_CHECK, question.to_bytes(), timeout_s=30))


async def test_message_store_hears_which_files_exist_and_whose_they_are(world: Any, file_id: str) -> None:
    answer = await check(world, (file_id, "alice"), (file_id, "mallory"), ("0" * 32, "alice"), ("no id", "alice"))
    assert answer.existing == [file_id]
    assert answer.owned == [FileQuestion(file_id=file_id, user_id="alice")]
    assert world.store.questions == []


async def test_a_question_without_files_has_an_answer(world: Any) -> None:
    assert await check(world) == FilesAnswer(existing=[], owned=[])


async def test_an_upload_in_progress_is_not_there_yet(world: Any) -> None:
    now = datetime.now(UTC)
    upload_id = new_file_id()
    await world.rows(
        "INSERT INTO uploads (upload_id, owner_id, kind, began_at, expires_at, reserved_bytes)"
        " VALUES ($1, 'alice', 'stream', $2, $3, 0)",
        upload_id, now, now + timedelta(hours=1),
    )  # fmt: skip
    assert (await check(world, (upload_id, "alice"))).existing == []
    assert await status(world, "alice", upload_id) == 404
