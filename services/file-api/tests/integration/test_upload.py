"""Uploading over both doors and in both forms."""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from typing import Any, NoReturn

import pytest
from botocore.exceptions import ClientError
from tlim_protocol.errors import ErrorCode
from tlim_protocol.registry import MsgType

PNG = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + bytes(range(256)) * 40


async def test_a_form_upload_is_stored_with_its_digest_type_and_chinese_name(world: Any) -> None:
    async with world.client("alice") as alice:
        answer = await alice.post("/v1/files", files={"whatever": ("照片.png", PNG, "text/html")})
    assert answer.status_code == 201, answer.text
    told = answer.json()
    assert (told["size"], told["sha256"]) == (len(PNG), hashlib.sha256(PNG).hexdigest())
    assert (told["name"], told["media_type"], told["owner"]) == ("照片.png", "image/png", "alice")
    assert len(world.bucket.objects()) == 1


async def test_raw_bytes_are_an_upload_too(world: Any) -> None:
    async with world.client("alice") as alice:
        answer = await alice.post("/v1/files?name=%E5%A3%B0%E9%9F%B3.amr", content=b"#!AMR\n\x3c" + bytes(32))
    assert (answer.json()["name"], answer.json()["media_type"]) == ("声音.amr", "audio/amr")


PACKED = {"Content-Encoding": "gzip"}
PACKED_PART = (
    b'--x\r\nContent-Disposition: form-data; name="f"; filename="a"\r\nContent-Encoding: gzip\r\n\r\nA\r\n--x--\r\n'
)


@pytest.mark.parametrize(
    "upload",
    [
        {"content": PNG, "headers": PACKED},
        {"files": {"file": ("a.png", PNG)}, "headers": PACKED},
        {"content": PACKED_PART, "headers": {"Content-Type": "multipart/form-data; boundary=x"}},
    ],
    ids=["raw", "form", "part"],
)
async def test_a_packed_body_is_refused_and_leaves_nothing(world: Any, upload: dict[str, Any]) -> None:
    async with world.client("alice") as alice:
        answer = await alice.post("/v1/files", **upload)
        legacy = await alice.post("/p/upload/mobileFileUpload", **upload)
        plain = await alice.post("/v1/files", content=PNG, headers={"Content-Encoding": "identity"})
    assert (answer.status_code, answer.json()["code"]) == (415, ErrorCode.UNSUPPORTED)
    assert ErrorCode.UNSUPPORTED in legacy.text
    assert plain.status_code == 201
    assert len(world.bucket.objects()) == 1


async def test_the_specifications_upload_answers_the_bare_id(world: Any) -> None:
    async with world.client("alice") as alice:
        plain = await alice.post("/anyProject/upload/mobileFileUpload", files={"file": ("a.png", PNG)})
        asked = await alice.post(
            "/anyProject/upload/mobileFileUpload", content=PNG, headers={"Accept": "application/json"}
        )
        read = await alice.get(f"/v1/files/{plain.text}/info")
    assert plain.headers["content-type"].startswith("text/plain")
    assert read.json()["file_id"] == plain.text
    assert list(asked.json()) == ["fileId"]


@pytest.mark.parametrize(
    ("accept", "is_json"),
    [
        (["application/json"], True),
        (["Application/JSON; charset=utf-8"], True),
        (["application/json, text/plain, */*"], True),
        (["text/html", "application/json;q=0.5"], True),
        (["*/*"], False),
        (["application/jsonp"], False),
        (["text/plain, application/json;q=0"], False),
    ],
)
async def test_the_specifications_upload_answers_as_the_client_accepts(
    world: Any, accept: list[str], is_json: bool
) -> None:
    async with world.client("alice") as alice:
        del alice.headers["Accept"]
        headers = [("Accept", one) for one in accept]
        answer = await alice.post("/p/upload/mobileFileUpload", content=PNG, headers=headers)
    assert answer.headers["content-type"].startswith("application/json" if is_json else "text/plain")


async def test_without_a_token_the_named_user_counts_where_that_is_trusted(world: Any) -> None:
    async with world.client("alice") as alice:
        del alice.headers["Authorization"]
        refused = await alice.post("/v1/files", content=PNG)
        nobody = await alice.post("/p/upload/mobileFileUpload", content=PNG)
        named = await alice.post("/p/upload/mobileFileUpload?user_id=Alice", content=PNG)
    assert (refused.status_code, nobody.status_code, named.status_code) == (401, 401, 200)
    assert [row["owner_id"] for row in await world.rows("SELECT owner_id FROM files")] == ["alice"]


async def test_an_upload_is_announced(world: Any, eventually: Any) -> None:
    async with world.client("alice") as alice:
        file_id = (await alice.post("/v1/files", content=PNG)).json()["file_id"]

    async def announced() -> None:
        events = await world.file_events()
        assert [(event.msg_type, event.file_id, event.user_id) for event in events] == [
            (MsgType.FILE_UPLOADED, file_id, "alice")
        ]
        assert (events[0].size, events[0].media_type) == (len(PNG), "image/png")

    await eventually(announced)


@pytest.mark.parametrize(
    "upload",
    [
        {"content": b""},
        {"files": {"file": ("a.png", b"")}},
        {"files": {"field": (None, "only text")}},
        {"files": [("one", ("a.png", PNG)), ("two", ("b.png", PNG))]},
        {"content": b"--x\r\n", "headers": {"Content-Type": "multipart/form-data; boundary=x"}},
        {"content": b"nonsense", "headers": {"Content-Type": "multipart/form-data; boundary=x"}},
        {"content": b"nonsense", "headers": {"Content-Type": "multipart/form-data"}},
        {
            "content": b'--x\r\nContent-Disposition: form-data; name="f"; filename="a"\r\n\r\ncut short',
            "headers": {"Content-Type": "multipart/form-data; boundary=x"},
        },
    ],
    ids=["empty body", "empty file", "no file", "two files", "only a boundary", "no form", "no boundary", "cut short"],
)
async def test_what_is_no_single_file_is_refused_and_leaves_nothing(world: Any, upload: dict[str, Any]) -> None:
    async with world.client("alice") as alice:
        modern = await alice.post("/v1/files", **upload)
        legacy = await alice.post("/p/upload/mobileFileUpload", **upload)
    assert (modern.status_code, modern.json()["code"]) == (422, ErrorCode.FIELD_INVALID)
    assert legacy.status_code == 200
    assert (legacy.json()["result"], legacy.json()["result_detail"]) == ("fail", ErrorCode.FIELD_INVALID)
    await world.nothing_left()


@pytest.mark.parametrize("path", ["/v1/files", "/p/upload/mobileFileUpload"])
class TestTooLarge:
    @pytest.fixture
    def changed_settings(self) -> dict[str, Any]:
        return {"max_upload_bytes": 20_000_000}

    async def test_a_length_over_the_limit_is_refused_before_the_bytes_are_read(self, world: Any, path: str) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", world.port)
        head = f"POST {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer alice\r\nContent-Length: 20000001\r\n\r\n"
        writer.write(head.encode())
        status = await reader.readline()
        writer.close()
        await writer.wait_closed()
        assert b"413" in status
        await world.nothing_left()

    async def test_an_unknown_length_is_refused_while_reading(self, world: Any, path: str) -> None:
        async def endless() -> AsyncIterator[bytes]:
            for _ in range(21):
                yield bytes(1_000_000)

        async with world.client("alice") as alice:
            answer = await alice.post(path, content=endless())
        assert answer.status_code == 413
        await world.nothing_left()

    async def test_the_limit_itself_is_allowed_in_a_form(self, world: Any, path: str) -> None:
        async with world.client("alice") as alice:
            answer = await alice.post(path, files={"file": ("zeros", bytes(20_000_000))})
        assert answer.is_success, answer.text
        assert (await world.rows("SELECT size FROM files"))[0]["size"] == 20_000_000


@pytest.mark.parametrize("sent", [100_000, 20_000_000], ids=["in the first part", "with parts in S3"])
async def test_an_upload_that_is_broken_off_leaves_nothing(world: Any, eventually: Any, sent: int) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", world.port)
    writer.write(
        b"POST /v1/files HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer alice\r\nContent-Length: 30000000\r\n\r\n"
    )
    writer.write(bytes(sent))
    await writer.drain()

    async def begun() -> None:
        assert len(await world.rows("SELECT * FROM uploads")) == 1
        assert len(world.bucket.unfinished()) == (1 if sent > 10_000_000 else 0)

    await eventually(begun)
    writer.close()
    await writer.wait_closed()
    await world.nothing_left()


async def test_while_s3_takes_no_writes_uploads_are_503_and_readiness_is_red_until_it_does(
    world: Any, eventually: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(**_: object) -> NoReturn:
        raise ClientError({"Error": {"Code": "InternalError", "Message": "no space left"}}, "PutObject")

    client = world.app.state.files._storage.client
    async with world.client("alice") as alice:
        kept = (await alice.post("/v1/files", content=PNG)).json()["file_id"]
        with monkeypatch.context() as full:
            full.setattr(client, "put_object", refuse)
            refused = await alice.post("/v1/files", content=PNG + b"more")
            assert (refused.status_code, refused.json()["code"]) == (503, ErrorCode.UNAVAILABLE)
            checks = (await alice.get("/readyz")).json()["checks"]
            assert {name for name, outcome in checks.items() if outcome != "ok"} == {"storage"}
            assert (await alice.get(f"/v1/files/{kept}")).content == PNG

        async def is_ready() -> None:
            assert (await alice.get("/readyz")).status_code == 200

        await eventually(is_ready)
