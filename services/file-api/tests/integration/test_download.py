"""Downloading: names, ranges, conditional requests, and what is announced."""

import hashlib
from typing import Any

import pytest
import pytest_asyncio
from tlim_protocol.errors import ErrorCode
from tlim_protocol.registry import MsgType

TEXT = ("".join(f"line {number}\n" for number in range(2000))).encode()


@pytest_asyncio.fixture
async def file_id(world: Any) -> str:
    async with world.client("alice") as alice:
        answer = await alice.post("/v1/files", files={"file": ('报告 "final".txt', TEXT, "text/plain")})
    identifier: str = answer.json()["file_id"]
    return identifier


@pytest.fixture(params=["/v1/files/{}", "/p/upload/mobileFileDownload?fileId={}"])
def address(request: pytest.FixtureRequest, file_id: str) -> str:
    return str(request.param).format(file_id)


async def test_a_download_is_the_same_bytes_with_type_name_and_length(world: Any, address: str) -> None:
    async with world.client("alice") as alice:
        answer = await alice.get(address)
    assert answer.content == TEXT
    assert answer.headers["content-type"] == "text/plain"
    assert answer.headers["content-length"] == str(len(TEXT))
    assert answer.headers["etag"] == f'"{hashlib.sha256(TEXT).hexdigest()}"'
    assert answer.headers["content-disposition"] == (
        "attachment; filename=\"__ _final_.txt\"; filename*=UTF-8''%E6%8A%A5%E5%91%8A%20%22final%22.txt"
    )


async def test_html_is_never_shown_in_our_origin(world: Any) -> None:
    async with world.client("alice") as alice:
        page = b"<!DOCTYPE html><script>alert(1)</script>"
        uploaded = await alice.post("/v1/files", files={"file": ("a.html", page, "text/html")})
        answer = await alice.get(f"/v1/files/{uploaded.json()['file_id']}")
    assert answer.headers["content-disposition"].startswith("attachment")
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "sandbox" in answer.headers["content-security-policy"]


async def test_head_tells_everything_but_the_bytes(world: Any, address: str) -> None:
    async with world.client("alice") as alice:
        head, get = await alice.head(address), await alice.get(address)
    told = ("etag", "content-length", "content-type", "content-disposition", "accept-ranges", "last-modified")
    assert head.status_code == 200
    assert head.content == b""
    assert {name: head.headers[name] for name in told} == {name: get.headers[name] for name in told}


@pytest.mark.parametrize(
    ("asked", "start", "end"),
    [("bytes=0-9", 0, 9), ("bytes=100-", 100, len(TEXT) - 1), ("bytes=-7", len(TEXT) - 7, len(TEXT) - 1)],
)
async def test_one_range_is_answered_with_that_part(world: Any, address: str, asked: str, start: int, end: int) -> None:
    async with world.client("alice") as alice:
        answer = await alice.get(address, headers={"Range": asked})
    assert answer.status_code == 206
    assert answer.content == TEXT[start : end + 1]
    assert answer.headers["content-range"] == f"bytes {start}-{end}/{len(TEXT)}"


@pytest.mark.parametrize("asked", [f"bytes={len(TEXT)}-", "bytes=-0", "bytes=9-2", "bytes=x"])
async def test_a_range_that_selects_nothing_is_416(world: Any, address: str, asked: str) -> None:
    async with world.client("alice") as alice:
        answer = await alice.get(address, headers={"Range": asked})
    assert (answer.status_code, answer.headers["content-range"]) == (416, f"bytes */{len(TEXT)}")


async def test_what_the_client_has_is_not_sent_again(world: Any, address: str) -> None:
    async with world.client("alice") as alice:
        first = await alice.get(address)
        by_tag = await alice.get(address, headers={"If-None-Match": first.headers["etag"]})
        by_date = await alice.get(address, headers={"If-Modified-Since": first.headers["last-modified"]})
        other = await alice.get(address, headers={"If-None-Match": '"other"'})
    assert (by_tag.status_code, by_date.status_code, other.status_code) == (304, 304, 200)
    assert by_tag.content == b""


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_another_version_than_the_one_that_was_asked_for_is_412(world: Any, address: str, method: str) -> None:
    async with world.client("alice") as alice:
        etag = (await alice.head(address)).headers["etag"]
        same = await alice.request(method, address, headers={"If-Match": etag})
        other = await alice.request(method, address, headers={"If-Match": '"other"', "If-None-Match": etag})
        old = {"If-Unmodified-Since": "Mon, 23 Nov 2020 12:00:00 GMT", "Range": "bytes=0-4"}
        dated = await alice.request(method, address, headers=old)
    assert (same.status_code, other.status_code, dated.status_code) == (200, 412, 412)


async def test_a_range_of_another_version_is_answered_with_the_whole_file(world: Any, address: str) -> None:
    async with world.client("alice") as alice:
        etag = (await alice.head(address)).headers["etag"]
        same = await alice.get(address, headers={"Range": "bytes=0-4", "If-Range": etag})
        other = await alice.get(address, headers={"Range": "bytes=0-4", "If-Range": '"other"'})
    assert (same.status_code, other.status_code) == (206, 200)


async def test_a_download_is_announced_once_however_many_requests_it_took(
    world: Any, eventually: Any, file_id: str
) -> None:
    world.store.sees.add((file_id, "bob"))
    async with world.client("alice") as alice, world.client("bob") as bob:
        await alice.head(f"/v1/files/{file_id}")
        await alice.get(f"/v1/files/{file_id}", headers={"Range": "bytes=0-99"})
        await alice.get(f"/v1/files/{file_id}", headers={"Range": "bytes=100-"})
        etag = (await alice.get(f"/v1/files/{file_id}")).headers["etag"]
        await alice.get(f"/v1/files/{file_id}", headers={"If-None-Match": etag})
        for _ in range(3):
            await alice.get(f"/v1/files/{file_id}/url")
        await bob.get(f"/v1/files/{file_id}")

    async def announced() -> None:
        events = [(event.msg_type, event.user_id) for event in await world.file_events()]
        assert events == [
            (MsgType.FILE_UPLOADED, "alice"), (MsgType.FILE_DOWNLOADED, "alice"), (MsgType.FILE_DOWNLOADED, "bob"),
        ]  # fmt: skip
        assert await world.rows("SELECT * FROM outbox") == []

    await eventually(announced)


@pytest.mark.parametrize("unknown", ["0" * 32, "nonsense", "..%2f..", "%00", ""])
async def test_an_unknown_file_is_refused(world: Any, unknown: str) -> None:
    async with world.client("alice") as alice:
        legacy = await alice.get(f"/p/upload/mobileFileDownload?fileId={unknown}")
        modern = await alice.get(f"/v1/files/{unknown or 'x'}/info")
    assert (legacy.status_code, legacy.json()["result_detail"]) == (200, ErrorCode.FILE_UNKNOWN)
    assert modern.status_code == 404


async def test_a_client_that_goes_away_does_not_keep_the_connection_to_s3(world: Any, eventually: Any) -> None:
    async with world.client("alice") as alice:
        uploaded = await alice.post("/v1/files", content=bytes(30_000_000))
        for _ in range(5):
            async with alice.stream("GET", f"/v1/files/{uploaded.json()['file_id']}") as answer:
                async for _ in answer.aiter_bytes():
                    break
    sessions = world.app.state.files._storage.client._endpoint.http_session._sessions.values()

    async def released() -> None:
        assert not any(session.connector._acquired for session in sessions)

    await eventually(released)
