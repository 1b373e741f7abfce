"""Files that bypass the gateway: parts uploaded to S3, resumed on another device, downloaded by URL; and thumbnails."""

import io
import os
from pathlib import Path

import httpx
import pytest
from PIL import Image
from tlim_client.compose import file_message
from tlim_client.failures import RefusedError
from tlim_protocol.errors import ErrorCode
from tlim_protocol.registry import MsgType

from tests.e2e.clients.people import People, next_delivered

MIB = 1024 * 1024


FILM = os.urandom(MIB) * 18  # three parts


@pytest.fixture
def film(tmp_path: Path) -> Path:
    path = tmp_path / "电影.bin"
    path.write_bytes(FILM)
    return path


@pytest.mark.proves(
    "POST /v1/uploads",
    "GET /v1/uploads",
    "GET /v1/uploads/{upload_id}",
    "GET /v1/uploads/{upload_id}/parts",
    "POST /v1/uploads/{upload_id}/complete",
    "GET /v1/files/{file_id}/url",
)
async def test_a_large_file_is_resumed_on_another_device_and_reaches_its_receiver(people: People, film: Path) -> None:
    alice, bob = await people("alice", "bob")
    phone, receiver = await alice.device(), await bob.device()
    on_the_train = await alice.http()
    upload_id = (await on_the_train.begin_upload(film))["upload_id"]
    second = (await on_the_train.call("GET", f"/v1/uploads/{upload_id}/parts", params={"first": 2, "limit": 1}))[
        "items"
    ]
    async with httpx.AsyncClient(timeout=60) as s3:
        assert (await s3.put(second[0]["url"], content=FILM[8 * MIB : 16 * MIB])).status_code == 200

    at_home = await alice.http()
    assert [upload["upload_id"] for upload in await at_home.open_uploads()] == [upload_id]
    shown = await at_home.call("GET", f"/v1/uploads/{upload_id}")
    assert [part["number"] for part in shown["received"]] == [2]
    file_id = await at_home.resume_upload(upload_id, film)

    await phone.send_until_stored(file_message(alice.user_id, bob.user_id, MsgType.FILE, file_id))
    (received,) = (await next_delivered(receiver)).envelope.file_ids
    url = await (await bob.http()).download_url(received)
    async with httpx.AsyncClient(timeout=60) as s3:
        answer = await s3.get(url)
    assert answer.content == FILM
    assert "filename*=UTF-8''%E7%94%B5%E5%BD%B1.bin" in answer.headers["Content-Disposition"]


async def test_the_door_to_s3_lets_nothing_through_but_signed_addresses_of_files(people: People, film: Path) -> None:
    (alice,) = await people("alice")
    client = await alice.http()
    url = httpx.URL(await client.download_url(await client.upload_direct(film)))
    assert url.params["X-Amz-Expires"] == "60"
    async with httpx.AsyncClient(timeout=60) as s3:
        part = await s3.get(url, headers={"Range": "bytes=-3"})
        assert (part.status_code, part.content) == (206, FILM[-3:])
        assert part.headers["X-Content-Type-Options"] == "nosniff"
        assert part.headers["Content-Security-Policy"].startswith("sandbox")
        for changed in (url.copy_with(query=None), url.copy_with(path="/tlim-files/"), url.copy_with(path="/")):
            assert (await s3.get(changed)).status_code == 404
        assert (await s3.get(url.copy_set_param("X-Amz-Expires", "3600"))).status_code == 403
        assert (await s3.delete(url)).status_code == 404


@pytest.mark.proves("DELETE /v1/uploads/{upload_id}")
async def test_an_upload_that_was_aborted_is_unknown(people: People, film: Path) -> None:
    (alice,) = await people("alice")
    client = await alice.http()
    upload_id = (await client.begin_upload(film))["upload_id"]

    await client.abort_upload(upload_id)

    with pytest.raises(RefusedError) as refusal:
        await client.resume_upload(upload_id, film)
    assert (refusal.value.status, refusal.value.code) == (404, ErrorCode.FILE_UNKNOWN)


@pytest.mark.proves("GET /v1/files/{file_id}/thumbnail")
async def test_the_receiver_of_a_photo_sees_it_small_and_a_stranger_does_not(people: People, tmp_path: Path) -> None:
    alice, bob, carol = await people("alice", "bob", "carol")
    phone, receiver = await alice.device(), await bob.device()
    photo = tmp_path / "photo.jpg"
    Image.effect_noise((1600, 1200), 50).save(photo)
    file_id = await (await alice.http()).upload_direct(photo)

    await phone.send_until_stored(file_message(alice.user_id, bob.user_id, MsgType.IMAGE, file_id))
    await next_delivered(receiver)

    with Image.open(io.BytesIO(await (await bob.http()).thumbnail(file_id))) as shown:
        assert (shown.size, shown.format) == ((320, 240), "JPEG")
    with pytest.raises(RefusedError) as refusal:
        await (await carol.http()).thumbnail(file_id)
    assert (refusal.value.status, refusal.value.code) == (404, ErrorCode.FILE_UNKNOWN)
