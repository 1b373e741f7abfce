"""Uploads whose bytes clients put into S3 themselves, with nothing but the URLs they were given."""

import asyncio
import hashlib
import os
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from tlim_protocol.errors import ErrorCode, TlimError
from tlim_protocol.registry import MsgType

MIB = 1024 * 1024
PNG = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + bytes(range(256)) * 40
LARGE = os.urandom(MIB) * 17 + b"the rest"  # parts of 8, 8 and a little more than 1 MiB
LONG_AGO = datetime.now(UTC) - timedelta(days=30)


async def begin(world: Any, data: bytes, user_id: str = "alice", **declared: Any) -> dict[str, Any]:
    async with world.client(user_id) as client:
        answer = await client.post("/v1/uploads", json={"name": "照片.png", "size": len(data), **declared})
    assert answer.status_code == 201, answer.text
    begun: dict[str, Any] = answer.json()
    assert answer.headers["location"] == f"/v1/uploads/{begun['upload_id']}"
    return begun


async def put(target: dict[str, Any], data: bytes) -> httpx.Response:
    """What a client does that knows HTTP and nothing of us: no token."""
    async with httpx.AsyncClient(timeout=60) as s3:
        return await s3.request(target["method"], target["url"], content=data, headers=target["headers"])


async def put_parts(upload: dict[str, Any], data: bytes, *numbers: int) -> None:
    for target in upload["parts"]:
        if target["number"] in numbers:
            start = (target["number"] - 1) * upload["part_size"]
            answer = await put(target, data[start : start + target["size"]])
            assert answer.status_code == 200, answer.text


async def call(world: Any, method: str, path: str, user_id: str = "alice", **parts: Any) -> httpx.Response:
    async with world.client(user_id) as client:
        answer: httpx.Response = await client.request(method, path, **parts)
    return answer


async def complete(world: Any, upload: dict[str, Any], **parts: Any) -> httpx.Response:
    return await call(world, "POST", f"/v1/uploads/{upload['upload_id']}/complete", **parts)


class TestOnePart:
    async def test_it_becomes_a_file_like_any_other(self, world: Any, eventually: Any) -> None:
        upload = await begin(world, PNG, media_type="text/html")
        assert (await put(upload["single"], PNG)).status_code == 200
        answer = await complete(world, upload)
        assert answer.status_code == 200, answer.text
        told = answer.json()
        assert (told["file_id"], told["owner"], told["name"]) == (upload["file_id"], "alice", "照片.png")
        assert (told["size"], told["sha256"]) == (len(PNG), hashlib.sha256(PNG).hexdigest())
        assert told["media_type"] == "image/png"  # from the content, not as declared
        assert (await call(world, "GET", f"/v1/files/{upload['file_id']}")).content == PNG
        assert await world.rows("SELECT * FROM uploads") == []

        async def announced() -> None:
            events = [event for event in await world.file_events() if event.msg_type is MsgType.FILE_UPLOADED]
            assert [(event.file_id, event.user_id, event.size) for event in events] == [
                (upload["file_id"], "alice", len(PNG))
            ]

        await eventually(announced)

    @pytest.mark.parametrize("media_type", ["a\0b", "text/x-y\0", "no type", "Text/X-Y; charset=\u2028"])
    async def test_a_declared_type_is_taken_only_if_it_is_one(self, world: Any, media_type: str) -> None:
        upload = await begin(world, b"\x00\x01\x02\x03", media_type=media_type)
        await put(upload["single"], b"\x00\x01\x02\x03")
        told = (await complete(world, upload)).json()["media_type"]
        assert told == ("text/x-y" if ";" in media_type else "image/png")  # else its name, 照片.png, counts

    async def test_its_url_is_for_the_public_address_and_needs_no_token(self, world: Any) -> None:
        upload = await begin(world, PNG)
        assert urlsplit(upload["single"]["url"]).hostname == "localhost"  # the service itself uses 127.0.0.1
        assert (upload["parts"], upload["part_count"]) == ([], 1)

    @pytest.mark.parametrize("change", [b"!", None], ids=["more", "fewer"])
    async def test_s3_takes_exactly_as_many_bytes_as_were_declared(self, world: Any, change: bytes | None) -> None:
        upload = await begin(world, PNG)
        wrong = PNG + change if change else PNG[:-1]
        upload["single"]["headers"] = {}
        assert (await put(upload["single"], wrong)).status_code == 403
        assert (await complete(world, upload)).status_code == 422

    async def test_it_is_no_file_before_it_is_complete(self, world: Any) -> None:
        upload = await begin(world, PNG)
        await put(upload["single"], PNG)
        assert (await call(world, "GET", f"/v1/files/{upload['file_id']}")).status_code == 404

    async def test_its_url_changes_nothing_once_it_is_complete(self, world: Any) -> None:
        upload = await begin(world, PNG)
        await put(upload["single"], PNG)
        await complete(world, upload)
        assert (await put(upload["single"], bytes(len(PNG)))).status_code == 404
        assert (await call(world, "GET", f"/v1/files/{upload['file_id']}")).content == PNG

    async def test_a_declared_digest_is_kept_or_the_upload_is_gone(self, world: Any, eventually: Any) -> None:
        right = await begin(world, PNG, sha256=hashlib.sha256(PNG).hexdigest().upper())
        await put(right["single"], PNG)
        assert (await complete(world, right)).status_code == 200
        wrong = await begin(world, PNG, sha256="0" * 64)
        await put(wrong["single"], PNG)
        refused = await complete(world, wrong)
        assert (refused.status_code, refused.json()["field"]) == (422, "sha256")
        assert (await complete(world, wrong)).status_code == 404

        async def gone() -> None:
            assert len(world.bucket.objects()) == 1

        await eventually(gone)

    async def test_bytes_that_are_known_are_not_kept_again(self, world: Any, eventually: Any) -> None:
        async with world.client("bob") as bob:
            await bob.post("/v1/files", content=PNG)
        upload = await begin(world, PNG)
        await put(upload["single"], PNG)
        assert (await complete(world, upload)).status_code == 200
        assert (await complete(world, upload)).status_code == 200

        async def once() -> None:
            assert len(world.bucket.objects()) == 1
            assert await world.rows("SELECT * FROM discarded") == []

        await eventually(once)
        assert (await call(world, "GET", f"/v1/files/{upload['file_id']}")).content == PNG


class TestSeveralParts:
    async def test_they_become_one_file_in_any_order(self, world: Any) -> None:
        upload = await begin(world, LARGE)
        assert (upload["single"], upload["part_count"]) == (None, 3)
        for number in (3, 1, 2):
            await put_parts(upload, LARGE, number)
        answer = await complete(world, upload)
        assert answer.json()["sha256"] == hashlib.sha256(LARGE).hexdigest()
        assert (await call(world, "GET", f"/v1/files/{upload['file_id']}")).content == LARGE

    async def test_a_lost_client_finds_out_what_is_there_and_goes_on(self, world: Any) -> None:
        upload_id = (await begin(world, LARGE))["upload_id"]
        first = (await call(world, "GET", f"/v1/uploads/{upload_id}")).json()
        assert first["received"] == []
        await put_parts(first, LARGE, 1, 3)
        # the client ends here; another one knows the id of the upload and has the file
        resumed = (await call(world, "GET", f"/v1/uploads/{upload_id}")).json()
        assert [(part["number"], part["size"]) for part in resumed["received"]] == [(1, 8 * MIB), (3, MIB + 8)]
        assert [target["number"] for target in resumed["parts"]] == [2]
        missing = await complete(world, resumed)
        assert (missing.status_code, missing.json()["field"]) == (422, "parts")
        await put_parts(resumed, LARGE, 2)
        assert (await complete(world, resumed)).json()["sha256"] == hashlib.sha256(LARGE).hexdigest()

    async def test_a_part_can_be_repeated(self, world: Any) -> None:
        upload = await begin(world, LARGE)
        broken = await put(upload["parts"][0], bytes(8 * MIB))
        await put_parts(upload, LARGE, 1, 2, 3)
        await put_parts(upload, LARGE, 2)
        shown = (await call(world, "GET", f"/v1/uploads/{upload['upload_id']}")).json()
        assert [part["number"] for part in shown["received"]] == [1, 2, 3]
        etag = hashlib.md5(LARGE[: 8 * MIB]).hexdigest()  # noqa: S324 - what S3 calls a part's ETag
        assert broken.headers["etag"] != f'"{etag}"'
        answer = await complete(world, upload, json={"parts": [{"number": 1, "etag": etag}]})
        assert answer.json()["sha256"] == hashlib.sha256(LARGE).hexdigest()

    async def test_more_urls_are_signed_by_the_page(self, world: Any) -> None:
        upload_id = (await begin(world, b"", size=150 * 8 * MIB))["upload_id"]
        shown = (await call(world, "GET", f"/v1/uploads/{upload_id}")).json()
        assert (shown["part_count"], len(shown["parts"])) == (150, 100)
        page = (await call(world, "GET", f"/v1/uploads/{upload_id}/parts?first=101")).json()
        assert ([part["number"] for part in page["items"]], page["next"]) == (list(range(101, 151)), None)
        page = (await call(world, "GET", f"/v1/uploads/{upload_id}/parts?first=7&limit=2")).json()
        assert ([part["number"] for part in page["items"]], page["next"]) == ([7, 8], 9)
        page = (await call(world, "GET", f"/v1/uploads/{upload_id}/parts?first=151")).json()
        assert (page["items"], page["next"]) == ([], None)
        assert (await call(world, "GET", f"/v1/uploads/{upload_id}/parts?limit=101")).status_code == 422

    async def test_open_uploads_are_listed_by_the_page(self, world: Any) -> None:
        ids = sorted([(await begin(world, PNG))["upload_id"] for _ in range(3)])
        await begin(world, PNG, user_id="bob")
        first = (await call(world, "GET", "/v1/uploads?limit=2")).json()
        rest = (await call(world, "GET", "/v1/uploads", params={"limit": 2, "cursor": first["next_cursor"]})).json()
        assert [upload["upload_id"] for upload in first["items"] + rest["items"]] == ids
        assert rest["next_cursor"] is None
        assert (await call(world, "GET", "/v1/uploads?cursor=nonsense")).status_code == 422


class TestWithoutS3:
    @pytest.fixture
    def changed_settings(self) -> dict[str, Any]:
        return {"s3_endpoint_url": "http://127.0.0.1:9"}  # discard: nobody listens there

    async def test_nothing_has_begun(self, world: Any) -> None:
        refused = await call(world, "POST", "/v1/uploads", json={"name": "a", "size": 1})
        assert (refused.status_code, refused.json()["code"]) == (503, ErrorCode.UNAVAILABLE)
        assert await world.rows("SELECT * FROM uploads") == []
        assert (await call(world, "GET", "/v1/uploads")).json()["items"] == []


class TestTheEnd:
    async def test_completing_twice_at_once_makes_one_file(self, world: Any, eventually: Any) -> None:
        upload = await begin(world, LARGE)
        await put_parts(upload, LARGE, 1, 2, 3)
        answers = await asyncio.gather(*(complete(world, upload) for _ in range(3)))
        assert [answer.status_code for answer in answers] == [200] * 3
        assert len({answer.text for answer in answers}) == 1
        assert (await complete(world, upload)).text == answers[0].text
        assert len(await world.rows("SELECT * FROM files")) == 1

        async def announced_once() -> None:
            assert await world.rows("SELECT * FROM outbox") == []
            assert len(await world.file_events()) == 1

        await eventually(announced_once)

    async def test_completing_too_late_takes_nothing_from_others(self, world: Any) -> None:
        upload = await begin(world, PNG)
        await put(upload["single"], PNG)
        world.bucket.join(upload["upload_id"])
        late = await world.app.state.direct.measured(await world.app.state.direct.find("alice", upload["upload_id"]))
        assert (await complete(world, upload)).status_code == 200
        theirs = (await call(world, "POST", "/v1/files", user_id="bob", content=PNG)).json()["file_id"]
        assert (await call(world, "DELETE", f"/v1/files/{upload['file_id']}")).status_code == 204
        with pytest.raises(TlimError):
            await world.app.state.files.finish(late)
        await world.app.state.disposal.sweep()
        assert (await call(world, "GET", f"/v1/files/{theirs}", user_id="bob")).content == PNG

    async def test_what_a_killed_process_had_joined_is_completed_by_the_next(self, world: Any) -> None:
        upload = await begin(world, PNG)
        await put(upload["single"], PNG)
        world.bucket.join(upload["upload_id"])
        assert (await complete(world, upload)).json()["sha256"] == hashlib.sha256(PNG).hexdigest()

    async def test_an_aborted_upload_leaves_nothing(self, world: Any) -> None:
        upload = await begin(world, LARGE)
        await put_parts(upload, LARGE, 1)
        path = f"/v1/uploads/{upload['upload_id']}"
        assert (await call(world, "DELETE", path)).status_code == 204
        await world.nothing_left()
        assert (await put(upload["parts"][1], LARGE[8 * MIB : 16 * MIB])).status_code == 404
        statuses = [(await call(world, method, path)).status_code for method in ("GET", "DELETE")]
        assert [*statuses, (await complete(world, upload)).status_code] == [404] * 3

    async def test_what_is_aborted_while_it_begins_leaves_nothing(self, world: Any) -> None:
        class Overtaken:
            async def begin(self, key: str) -> str:
                [upload] = (await call(world, "GET", "/v1/uploads")).json()["items"]
                assert (await call(world, "DELETE", f"/v1/uploads/{upload['upload_id']}")).status_code == 204
                begun: str = await parts.begin(key)
                return begun

        direct = world.app.state.direct
        parts, direct._parts = direct._parts, Overtaken()
        refused = await call(world, "POST", "/v1/uploads", json={"name": "a", "size": 1})
        assert (refused.status_code, refused.json()["code"]) == (503, ErrorCode.UNAVAILABLE)
        await world.rows("UPDATE discarded SET not_before = $1", LONG_AGO)  # it is not looked for at once
        await world.app.state.disposal.sweep()
        await world.nothing_left()

    async def test_an_expired_upload_is_refused_and_collected(self, world: Any) -> None:
        parts, joined = await begin(world, LARGE), await begin(world, PNG)
        await put_parts(parts, LARGE, 1)
        await put(joined["single"], PNG)
        world.bucket.join(joined["upload_id"])
        await world.rows("UPDATE uploads SET expires_at = $1", LONG_AGO)
        for upload in (parts, joined):
            path = f"/v1/uploads/{upload['upload_id']}"
            assert (await call(world, "GET", path)).status_code == 404
            assert (await complete(world, upload)).status_code == 404
        await world.app.state.disposal.sweep()
        await world.nothing_left()
        assert await world.rows("SELECT * FROM uploads") == []


class TestWhoMay:
    async def test_an_upload_is_its_owners_alone(self, world: Any) -> None:
        upload = await begin(world, PNG)
        await put(upload["single"], PNG)
        path = f"/v1/uploads/{upload['upload_id']}"
        calls = [("GET", path), ("GET", f"{path}/parts"), ("POST", f"{path}/complete"), ("DELETE", path)]
        for method, where in calls:
            refused = await call(world, method, where, user_id="mallory")
            assert (refused.status_code, refused.json()["code"]) == (404, ErrorCode.FILE_UNKNOWN)
        assert (await complete(world, upload)).status_code == 200
        assert (await call(world, "POST", f"{path}/complete", user_id="mallory")).status_code == 404

    async def test_a_stream_that_is_running_is_no_direct_upload(self, world: Any) -> None:
        await world.rows(
            "INSERT INTO uploads (upload_id, owner_id, kind, began_at, expires_at, reserved_bytes)"
            " VALUES ($1, 'alice', 'stream', now(), now() + interval '1 hour', 0)", "a" * 32
        )  # fmt: skip
        assert (await call(world, "GET", f"/v1/uploads/{'a' * 32}")).status_code == 404

    @pytest.mark.parametrize(
        ("declared", "status"),
        [
            ({"name": "a", "size": 0}, 422),
            ({"name": "a", "size": 3 * 1024**3}, 413),
            ({"name": "a" * 2000, "size": 1}, 422),
            ({"name": "a", "size": 1, "sha256": "xyz"}, 422),
            ({"name": "a"}, 422),
        ],
        ids=["empty", "over the limit", "name", "digest", "no size"],
    )
    async def test_what_cannot_be_is_refused_at_once(self, world: Any, declared: dict[str, Any], status: int) -> None:
        refused = await call(world, "POST", "/v1/uploads", json=declared)
        assert refused.status_code == status, refused.text
        assert await world.rows("SELECT * FROM uploads") == []


class TestWithoutPublicAddress:
    @pytest.fixture
    def changed_settings(self) -> dict[str, Any]:
        return {"s3_public_url": None}

    async def test_there_is_no_direct_way(self, world: Any) -> None:
        file_id = (await call(world, "POST", "/v1/files", content=PNG)).json()["file_id"]
        answers = [
            await call(world, "POST", "/v1/uploads", json={"name": "a", "size": 1}),
            await call(world, "GET", f"/v1/files/{file_id}/url"),
        ]
        assert [(answer.status_code, answer.json()["code"]) for answer in answers] == [(422, ErrorCode.UNSUPPORTED)] * 2


class TestShortUrls:
    @pytest.fixture
    def changed_settings(self) -> dict[str, Any]:
        return {"download_url_lifetime": timedelta(seconds=1), "part_url_lifetime": timedelta(seconds=1)}

    async def test_urls_end(self, world: Any, eventually: Any) -> None:
        file_id = (await call(world, "POST", "/v1/files", content=PNG)).json()["file_id"]
        download = (await call(world, "GET", f"/v1/files/{file_id}/url")).json()["url"]
        upload = await begin(world, PNG)

        async def refused() -> None:
            async with httpx.AsyncClient(timeout=60) as s3:
                assert (await s3.get(download)).status_code == 403
            assert (await put(upload["single"], PNG)).status_code == 403

        await eventually(refused)

        async def taken() -> None:  # in less than the second that it is valid
            again = (await call(world, "GET", f"/v1/uploads/{upload['upload_id']}")).json()
            assert (await put(again["single"], PNG)).status_code == 200

        await eventually(taken)
        assert (await complete(world, upload)).status_code == 200


class TestOpen:
    @pytest.fixture
    def changed_settings(self) -> dict[str, Any]:
        return {"open_direct_uploads_per_user": 2}

    async def test_a_few_may_be_open_of_each_owner(self, world: Any) -> None:
        first, _ = [await begin(world, PNG) for _ in range(2)]
        declared = {"name": "a", "size": 3}
        answers = await asyncio.gather(*(call(world, "POST", "/v1/uploads", json=declared) for _ in range(3)))
        assert [(answer.status_code, answer.json()["code"]) for answer in answers] == 3 * [
            (429, ErrorCode.TOO_MANY_REQUESTS)
        ]
        assert int(answers[0].headers["Retry-After"]) > 0
        assert len(world.bucket.unfinished()) == 2
        await begin(world, PNG, "bob")
        assert (await call(world, "DELETE", f"/v1/uploads/{first['upload_id']}")).status_code == 204
        await begin(world, PNG)
