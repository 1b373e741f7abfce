"""Downloads directly from S3, with a URL that works for a while and needs no token."""

from datetime import UTC, datetime
from typing import Any

import httpx
from tlim_protocol.errors import ErrorCode
from tlim_protocol.registry import MsgType

PNG = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + bytes(range(256)) * 40


async def test_a_url_gives_the_bytes_under_type_and_name(world: Any, eventually: Any) -> None:
    async with world.client("alice") as alice, httpx.AsyncClient(timeout=60) as s3:
        uploaded = await alice.post("/v1/files", files={"file": ("照片.png", PNG, "text/html")})
        told = (await alice.get(f"/v1/files/{uploaded.json()['file_id']}/url")).json()
        answer = await s3.get(told["url"])
        part = await s3.get(told["url"], headers={"Range": "bytes=1-3"})
    assert (answer.status_code, answer.content, part.content) == (200, PNG, PNG[1:4])
    assert answer.headers["content-type"] == "image/png"
    assert answer.headers["content-disposition"].startswith("attachment; ")
    assert "filename*=UTF-8''%E7%85%A7%E7%89%87.png" in answer.headers["content-disposition"]
    assert datetime.fromisoformat(told["expires_at"]) > datetime.now(UTC)

    async def announced() -> None:
        assert [event.msg_type for event in await world.file_events()][-1:] == [MsgType.FILE_DOWNLOADED]

    await eventually(announced)


async def test_the_url_of_a_deleted_file_ends_at_once(world: Any) -> None:
    async with world.client("alice") as alice, httpx.AsyncClient(timeout=60) as s3:
        path = f"/v1/files/{(await alice.post('/v1/files', content=PNG)).json()['file_id']}"
        url = (await alice.get(f"{path}/url")).json()["url"]
        assert (await s3.get(url)).content == PNG
        assert (await alice.delete(path)).status_code == 204
        assert (await s3.get(url)).status_code == 404


async def test_a_stranger_gets_no_url(world: Any) -> None:
    async with world.client("alice") as alice, world.client("mallory") as mallory:
        file_id = (await alice.post("/v1/files", content=PNG)).json()["file_id"]
        for wanted in (file_id, "0" * 32):
            refused = await mallory.get(f"/v1/files/{wanted}/url")
            assert (refused.status_code, refused.json()["code"]) == (404, ErrorCode.FILE_UNKNOWN)
