"""How much a user may have, how often a user may upload, and how users make room again."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from file_api.errors import QuotaExceeded
from file_api.repository.direct import DirectRepository
from tlim_protocol.errors import ErrorCode
from tlim_protocol.events import FileQuestion, FilesQuestion
from tlim_protocol.limits import LimitCounts
from tlim_protocol.subjects import Rpc, subject_of_limits
from tlim_runtime.outages import DatabaseUnavailable

QUOTA = 100_000
UPLOADS = ("/v1/files", "/p/upload/mobileFileUpload")


@pytest.fixture
def changed_settings() -> dict[str, Any]:
    return {"user_quota_bytes": QUOTA}


async def in_pieces(size: int) -> AsyncIterator[bytes]:
    """A body whose length nobody knows beforehand."""
    for _ in range(size // 10_000):
        yield bytes(10_000)


async def usage(client: httpx.AsyncClient) -> dict[str, int]:
    answer = await client.get("/v1/files/usage")
    assert answer.status_code == 200, answer.text
    told: dict[str, int] = answer.json()
    return told


def assert_over_quota(answer: httpx.Response) -> None:
    assert answer.status_code == 413, answer.text
    assert (answer.json()["code"], answer.json()["field"]) == (ErrorCode.FIELD_INVALID, "quota")


async def test_everybody_sees_what_he_has_and_may_have(world: Any) -> None:
    async with world.client("alice") as alice, world.client("bob") as bob:
        for _ in range(2):
            await alice.post("/v1/files", content=bytes(1_000))
        await bob.post("/v1/files", content=bytes(1_000))
        assert await usage(alice) == {
            "files": 2, "stored_bytes": 2_000, "reserved_bytes": 0, "quota_bytes": QUOTA,
        }  # fmt: skip
        assert (await usage(bob))["stored_bytes"] == 1_000


@pytest.mark.parametrize("path", UPLOADS)
async def test_a_length_over_the_quota_is_refused_before_the_bytes_are_read(world: Any, path: str) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", world.port)
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer alice\r\nContent-Length: {QUOTA + 1}\r\n\r\n"
    writer.write(head.encode())
    assert b"413" in await reader.readline()
    writer.close()
    await writer.wait_closed()
    await world.nothing_left()


@pytest.mark.parametrize("path", UPLOADS)
async def test_an_unknown_length_is_refused_while_reading_and_leaves_nothing(world: Any, path: str) -> None:
    async with world.client("alice") as alice:
        assert_over_quota(await alice.post(path, content=in_pieces(QUOTA + 10_000)))
        await world.nothing_left()
        assert (await alice.post(path, content=in_pieces(QUOTA))).is_success
        assert_over_quota(await alice.post(path, content=b"x"))


@pytest.mark.parametrize("known", [True, False], ids=["length known", "length unknown"])
async def test_uploads_at_the_same_time_do_not_exceed_it_together(world: Any, known: bool) -> None:
    async with world.client("alice") as alice:
        bodies = [bytes(30_000) if known else in_pieces(30_000) for _ in range(8)]
        answers = await asyncio.gather(*(alice.post("/v1/files", content=body) for body in bodies))
        used = await usage(alice)
    assert sorted(answer.status_code for answer in answers) == [201] * 3 + [413] * 5
    assert (used["stored_bytes"], used["reserved_bytes"]) == (90_000, 0)
    assert len(await world.rows("SELECT * FROM files")) == 3
    assert await world.rows("SELECT * FROM uploads") == []


async def test_what_running_uploads_reserve_is_not_given_to_others(world: Any) -> None:
    await world.rows(
        "INSERT INTO uploads (upload_id, owner_id, kind, began_at, expires_at, reserved_bytes)"
        " VALUES ('running', 'alice', 'stream', now(), now() + interval '1 hour', 60000),"
        " ('expired', 'alice', 'stream', now(), now(), 60000)"
    )
    async with world.client("alice") as alice:
        assert (await usage(alice))["reserved_bytes"] == 60_000
        assert_over_quota(await alice.post("/v1/files", content=bytes(40_001)))
        assert (await alice.post("/v1/files", content=bytes(40_000))).is_success


async def test_a_direct_upload_reserves_what_it_declares_until_it_ends(world: Any) -> None:
    async with world.client("alice") as alice:
        begun = (await alice.post("/v1/uploads", json={"name": "a", "size": 60_000})).json()
        assert (await usage(alice))["reserved_bytes"] == 60_000
        assert_over_quota(await alice.post("/v1/uploads", json={"name": "b", "size": 40_001}))
        assert_over_quota(await alice.post("/v1/files", content=in_pieces(50_000)))
        await alice.delete(f"/v1/uploads/{begun['upload_id']}")
        assert (await usage(alice))["reserved_bytes"] == 0
        assert (await alice.post("/v1/files", content=in_pieces(QUOTA))).is_success


async def test_what_is_completed_after_it_expired_has_to_find_room(world: Any) -> None:
    direct = world.app.state.direct
    async with world.client("alice") as alice, httpx.AsyncClient(timeout=60) as s3:
        begun = (await alice.post("/v1/uploads", json={"name": "a", "size": 60_000})).json()
        target = begun["single"]
        assert (await s3.put(target["url"], content=bytes(60_000), headers=target["headers"])).is_success
        world.bucket.join(begun["upload_id"])
        late = await direct.measured(await direct.find("alice", begun["upload_id"]))  # expires while it is read
        await world.rows("UPDATE uploads SET expires_at = now()")
        assert (await alice.post("/v1/files", content=bytes(50_000))).is_success
        with pytest.raises(QuotaExceeded):
            await world.app.state.files.finish(late)
        assert (await usage(alice))["stored_bytes"] == 50_000
    assert await world.rows("SELECT * FROM uploads") == []


async def test_a_deleted_file_is_gone_for_everybody_and_makes_room(world: Any) -> None:
    async with world.client("alice") as alice, world.client("bob") as bob:
        file_id = (await alice.post("/v1/files", content=bytes(QUOTA))).json()["file_id"]
        world.store.sees.add((file_id, "bob"))
        assert (await bob.delete(f"/v1/files/{file_id}")).json()["code"] == ErrorCode.FILE_UNKNOWN
        assert (await bob.get(f"/v1/files/{file_id}")).status_code == 200
        deleted = await alice.delete(f"/v1/files/{file_id}")
        assert (deleted.status_code, deleted.content) == (204, b"")
        assert (await alice.delete(f"/v1/files/{file_id}")).status_code == 404
        assert (await alice.delete("/v1/files/nonsense")).status_code == 404
        assert (await bob.get(f"/v1/files/{file_id}")).status_code == 404
        await world.nothing_left()
        assert (await alice.post("/v1/files", content=bytes(QUOTA))).is_success


async def test_a_deleted_file_leaves_a_note_if_a_message_may_carry_it(world: Any) -> None:
    async with world.client("alice") as alice:
        sent, unsent = [(await alice.post("/v1/files", content=one)).json()["file_id"] for one in (b"sent", b"unsent")]
        question = FilesQuestion(asks=[FileQuestion(file_id=sent, user_id="alice")])
        await world.tests.request(Rpc.FILE_CHECK, question.to_bytes(), timeout_s=30)
        for file_id in (sent, unsent):
            await alice.delete(f"/v1/files/{file_id}")
    assert [row["file_id"] for row in await world.rows("SELECT file_id FROM removed_files")] == [sent]


async def test_bytes_stay_as_long_as_somebody_has_them(world: Any) -> None:
    async with world.client("alice") as alice, world.client("bob") as bob:
        first = (await alice.post("/v1/files", content=b"shared")).json()["file_id"]
        second = (await bob.post("/v1/files", content=b"shared")).json()["file_id"]
        await alice.delete(f"/v1/files/{first}")
        assert (await bob.get(f"/v1/files/{second}")).content == b"shared"
        await bob.delete(f"/v1/files/{second}")
    await world.nothing_left()


async def test_deleting_and_uploading_the_same_bytes_at_the_same_time_loses_neither(world: Any) -> None:
    async def come_and_go(user_id: str) -> None:
        async with world.client(user_id) as client:
            for _ in range(10):
                file_id = (await client.post("/v1/files", content=b"contended")).json()["file_id"]
                assert (await client.get(f"/v1/files/{file_id}")).content == b"contended"
                assert (await client.delete(f"/v1/files/{file_id}")).status_code == 204

    await asyncio.gather(*(come_and_go(f"user{number}") for number in range(4)))
    await world.app.state.disposal.sweep()
    await world.nothing_left()


class TestRate:
    @pytest.fixture
    def changed_settings(self) -> dict[str, Any]:
        return {"uploads_per_user": "2/hour"}

    @pytest.mark.parametrize("path", UPLOADS)
    async def test_who_uploads_too_often_is_told_when_to_come_back_and_others_are_not(
        self, world: Any, path: str
    ) -> None:
        async with world.client("alice") as alice, world.client("bob") as bob:
            first, second, third = [await alice.post(path, content=b"bytes") for _ in range(3)]
            assert (first.is_success, second.is_success, third.status_code) == (True, True, 429)
            assert third.json()["code"] == ErrorCode.TOO_MANY_REQUESTS
            assert 0 < int(third.headers["Retry-After"]) <= 3_600
            assert (await bob.post(path, content=b"bytes")).is_success
        assert await world.rows("SELECT * FROM uploads") == []

    async def test_uploads_at_all_instances_count_together(self, world: Any, eventually: Any) -> None:
        subject, told = subject_of_limits("file-api"), list[bytes]()
        await world.tests.listen(subject, lambda _subject, payload: told.append(payload))
        at_another = LimitCounts(instance="another", limit="uploads", counts={"alice": 1})
        async with world.client("alice") as alice:

            async def is_told() -> None:
                assert {"alice": 1} in [LimitCounts.from_bytes(one).counts for one in told]

            async def has_heard() -> None:
                assert 'tlim_limit_counts_total{outcome="heard"} 1.0' in (await alice.get("/metrics")).text

            assert (await alice.post("/v1/files", content=b"bytes")).is_success
            await eventually(is_told)
            await world.tests.send(subject, at_another.to_bytes())
            await eventually(has_heard)
            assert (await alice.post("/v1/files", content=b"bytes")).status_code == 429

    async def test_direct_uploads_count_too(self, world: Any) -> None:
        async with world.client("alice") as alice:
            answers = [await alice.post("/v1/uploads", json={"name": "a", "size": 1}) for _ in range(3)]
        assert [answer.status_code for answer in answers] == [201, 201, 429]


async def test_a_direct_upload_that_could_not_begin_reserves_nothing(
    world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(*_: object) -> bool:
        raise DatabaseUnavailable("away")

    monkeypatch.setattr(DirectRepository, "open", away)
    async with world.client("alice") as alice:
        assert (await alice.post("/v1/uploads", json={"name": "a", "size": 60_000})).status_code == 503
        assert (await usage(alice))["reserved_bytes"] == 0


async def test_a_direct_upload_whose_beginning_was_killed_can_be_found_and_aborted(world: Any) -> None:
    await world.rows(
        "INSERT INTO uploads (upload_id, owner_id, kind, began_at, expires_at, reserved_bytes, part_bytes)"
        " VALUES ($1, 'alice', 'direct', now(), now() + interval '1 day', 60000, 60000)", "a" * 32
    )  # fmt: skip
    async with world.client("alice") as alice, world.client("bob") as bob:
        listed = (await alice.get("/v1/uploads")).json()["items"]
        assert [(item["upload_id"], item["size"]) for item in listed] == [("a" * 32, 60_000)]
        path = f"/v1/uploads/{'a' * 32}"
        assert (await alice.get(path)).status_code == (await bob.delete(path)).status_code == 404
        assert (await alice.delete(path)).status_code == 204
        assert (await usage(alice))["reserved_bytes"] == 0
    await world.rows("UPDATE discarded SET not_before = now()")  # later, for S3 may still begin it
    await world.app.state.disposal.sweep()
    await world.nothing_left()
