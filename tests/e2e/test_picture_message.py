"""A picture message: uploaded, sent, downloaded by its receiver, refused to a stranger."""

from pathlib import Path

import pytest
from tlim_client.compose import file_message
from tlim_client.failures import RefusedError
from tlim_devstack.stack import Stack
from tlim_protocol.errors import ErrorCode
from tlim_protocol.registry import REGISTRY, MsgType

from tests.e2e.clients.people import People, next_delivered
from tests.e2e.clients.stream import file_event

PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d49484452000000010000000108060000001f15c4890000000d49444154789c6260606000000000050001"
    "a5f645400000000049454e44ae426082"
)
DIRECT_FILE_TYPES = [kind for kind, row in REGISTRY.items() if row.carries_file and not row.is_group]


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "小猫.png"
    path.write_bytes(PNG)
    return path


@pytest.mark.proves(MsgType.IMAGE, ErrorCode.FILE_UNKNOWN, "POST /v1/files", "GET /v1/files/{file_id}")
async def test_the_receiver_downloads_what_was_sent_and_a_stranger_does_not(people: People, picture: Path) -> None:
    alice, bob, carol = await people("alice", "bob", "carol")
    phone, receiver = await alice.device(), await bob.device()
    file_id = await (await alice.http()).upload(picture)

    await phone.send_until_stored(file_message(alice.user_id, bob.user_id, MsgType.IMAGE, file_id))
    delivered = await next_delivered(receiver)
    (received,) = delivered.envelope.file_ids
    folder = picture.parent / "bob"
    folder.mkdir()
    download = await (await bob.http()).download(received, folder)

    assert download.path == folder / "小猫.png"
    assert (download.path.read_bytes(), download.media_type) == (PNG, "image/png")
    with pytest.raises(RefusedError) as refusal:
        await (await carol.http()).download(file_id, folder)
    assert (refusal.value.status, refusal.value.code) == (404, ErrorCode.FILE_UNKNOWN)


async def test_before_it_was_sent_a_file_is_its_uploader_s_alone(people: People, picture: Path) -> None:
    alice, bob = await people("alice", "bob")
    one, other = await alice.http(), await bob.http()
    file_id = await one.upload(picture)

    with pytest.raises(RefusedError) as refusal:
        await other.download(file_id, picture.parent)

    assert refusal.value.code is ErrorCode.FILE_UNKNOWN
    assert (await one.download(file_id, picture.parent / "mine.png")).path.read_bytes() == PNG


@pytest.mark.proves(ErrorCode.FILE_UNKNOWN)
async def test_a_file_that_is_not_his_is_not_sent_and_nobody_gains_access(people: People, picture: Path) -> None:
    alice, mallory = await people("alice", "mallory")
    file_id = await (await alice.http()).upload(picture)
    device = await mallory.device()

    for foreign in (file_id, "0" * 32, "no id"):
        with pytest.raises(RefusedError) as refusal:
            await device.send_until_stored(file_message(mallory.user_id, mallory.user_id, MsgType.FILE, foreign))
        assert refusal.value.code is ErrorCode.FILE_UNKNOWN
    with pytest.raises(RefusedError) as refusal:
        await (await mallory.http()).download(file_id, picture.parent)
    assert refusal.value.code is ErrorCode.FILE_UNKNOWN


@pytest.mark.proves(
    MsgType.IMAGE,
    MsgType.FILE,
    MsgType.VOICE,
    "POST /{project_name}/upload/mobileFileUpload",
    "GET /{project_name}/upload/mobileFileDownload",
)
@pytest.mark.parametrize("kind", DIRECT_FILE_TYPES)
async def test_every_direct_file_type_shares_its_file_over_the_specification_s_addresses(
    people: People, kind: MsgType
) -> None:
    alice, bob = await people("alice", "bob")
    phone, receiver = await alice.device(), await bob.device()
    one, other = await alice.http(), await bob.http()

    uploaded = await one.ask("POST", "/app/upload/mobileFileUpload", content=PNG)
    assert uploaded.headers["Content-Type"].startswith("text/plain")
    await phone.send_until_stored(file_message(alice.user_id, bob.user_id, kind, uploaded.text))
    await next_delivered(receiver)
    answer = await other.ask("GET", "/app/upload/mobileFileDownload", params={"fileId": uploaded.text})

    assert (answer.status_code, answer.content) == (200, PNG)
    part = await other.ask(
        "GET", "/app/upload/mobileFileDownload", params={"fileId": uploaded.text}, headers={"Range": "bytes=1-3"}
    )
    assert (part.status_code, part.content) == (206, b"PNG")


@pytest.mark.proves(
    "GET /v1/files/{file_id}/info",
    "HEAD /v1/files/{file_id}",
    "HEAD /{project_name}/upload/mobileFileDownload",
    MsgType.FILE_UPLOADED,
    MsgType.FILE_DOWNLOADED,
)
async def test_a_file_is_described_without_its_bytes_and_what_happens_to_it_is_told_for_audit(
    people: People, picture: Path, stack: Stack
) -> None:
    (alice,) = await people("alice")
    client = await alice.http()

    file_id = await client.upload(picture, media_type="image/png")
    info = await client.call("GET", f"/v1/files/{file_id}/info")
    heads = [
        await client.ask("HEAD", f"/v1/files/{file_id}"),
        await client.ask("HEAD", "/app/upload/mobileFileDownload", params={"fileId": file_id}),
    ]
    await client.download(file_id, picture.parent)

    size = len(PNG)
    assert (info["owner"], info["size"], info["media_type"]) == (alice.user_id, size, "image/png")
    for head in heads:
        assert (head.status_code, head.content, head.headers["Content-Length"]) == (200, b"", str(size))
    told = [await file_event(stack, kind, file_id=file_id) for kind in (MsgType.FILE_UPLOADED, MsgType.FILE_DOWNLOADED)]
    assert [(event["user_id"], event["size"], event["media_type"]) for event in told] == [
        (alice.user_id, size, "image/png")
    ] * 2
