"""Thumbnails, and what is found out about files: width, height, duration."""

import asyncio
import io
import wave
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import httpx
import pytest
from file_api.files import object_key
from file_api.inspect.inspection import MAX_INSPECTED_BYTES, Inspected, Kind, ThumbnailSize
from file_api.inspect.inspector import WorkerLost, WorkersBusy
from file_api.media.previews import MOST_LOSSES
from PIL import Image
from tlim_protocol.errors import ErrorCode


def photo(size: tuple[int, int] = (1200, 600)) -> bytes:
    out, exif = io.BytesIO(), Image.Exif()
    exif[0x0112] = 6  # held upright
    Image.effect_noise(size, 100).convert("RGB").save(out, "JPEG", exif=exif)
    return out.getvalue()


def recording(milliseconds: int) -> bytes:
    out = io.BytesIO()
    with wave.open(out, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(bytes(2 * 8 * milliseconds))
    return out.getvalue()


@pytest.fixture
def changed_settings() -> dict[str, Any]:
    return {"examine_interval": timedelta(seconds=0.05)}


@pytest.fixture
def uploaded(world: Any) -> Callable[[bytes], Awaitable[str]]:
    async def upload(data: bytes) -> str:
        async with world.client("alice") as alice:
            return str((await alice.post("/v1/files", content=data)).json()["file_id"])

    return upload


async def get(world: Any, path: str, user_id: str = "alice", **headers: str) -> httpx.Response:
    async with world.client(user_id) as client:
        answer: httpx.Response = await client.get(path, headers=headers)
    return answer


class Lost:
    """Workers that do not come back."""

    async def inspect(self, *_: object) -> Inspected:
        raise WorkerLost("short of memory")


async def losses_of(world: Any) -> tuple[int, bool | None]:
    """How many workers the only blob has cost, and whether the next look at it is put off; None: there is none."""
    (row,) = await world.rows("SELECT worker_losses, facts_due_at > now() + interval '4 minutes' AS later FROM blobs")
    return row["worker_losses"], row["later"]


class TestFacts:
    @pytest.mark.parametrize(
        ("make", "facts"),
        [
            (photo, (600, 1200, None)),
            (lambda: recording(2500), (None, None, 2500)),
            (lambda: b"#!AMR\n" + 50 * (b"\x3c" + bytes(31)), (None, None, 1000)),
            (lambda: photo()[:300], (None, None, None)),
            (lambda: b"only text", (None, None, None)),
        ],
        ids=["photo", "wave", "amr", "damaged", "text"],
    )
    async def test_they_are_found_out_after_the_upload(
        self, world: Any, eventually: Any, uploaded: Any, make: Callable[[], bytes], facts: tuple[int | None, ...]
    ) -> None:
        file_id = await uploaded(make())

        async def examined() -> None:
            assert [row["facts_due_at"] for row in await world.rows("SELECT facts_due_at FROM blobs")] == [None]

        await eventually(examined)
        told = (await get(world, f"/v1/files/{file_id}/info")).json()
        assert (told["width"], told["height"], told["duration_ms"]) == facts

    async def test_the_answer_to_an_upload_does_not_tell_that_the_bytes_were_known(
        self, world: Any, eventually: Any, uploaded: Any
    ) -> None:
        data = photo()
        first = await uploaded(data)

        async def examined() -> None:
            assert (await get(world, f"/v1/files/{first}/info")).json()["width"] == 600

        await eventually(examined)
        async with world.client("bob") as bob:
            again = (await bob.post("/v1/files", content=data)).json()
            assert (again["width"], again["height"], again["duration_ms"]) == (None, None, None)
            assert (await bob.get(f"/v1/files/{again['file_id']}/info")).json()["width"] == 600

    async def test_a_virus_is_not_looked_into(self, world: Any, eventually: Any, uploaded: Any) -> None:
        await world.rows(
            "INSERT INTO blobs (blob_id, sha256, size, stored_at, scan, facts_due_at)"
            " VALUES ('bad', 'digest', 1, now(), 'infected', now() - interval '1 hour')"
        )
        await uploaded(b"something else")

        async def others_are_done() -> None:
            due = await world.rows("SELECT blob_id FROM blobs WHERE facts_due_at IS NOT NULL")
            assert [row["blob_id"] for row in due] == ["bad"]

        await eventually(others_are_done)

    async def test_what_nobody_expected_of_a_file_stops_no_other(
        self, world: Any, eventually: Any, uploaded: Any
    ) -> None:
        class Surprised:
            async def inspect(self, *_: object) -> Inspected:
                raise ValueError("what is this?")

        world.app.state.previews._inspector = Surprised()
        for content in (b"#!AMR\n\x3c" + bytes(32), recording(10), photo()):
            await uploaded(content)

        async def examined() -> None:
            assert {row["facts_due_at"] for row in await world.rows("SELECT facts_due_at FROM blobs")} == {None}

        await eventually(examined)

    async def test_lost_workers_are_not_the_files_fault_until_there_were_many(
        self, world: Any, eventually: Any, uploaded: Any
    ) -> None:
        world.app.state.previews._inspector = Lost()
        await uploaded(photo())
        for losses in range(1, MOST_LOSSES):

            async def is_put_off(expected: tuple[int, bool] = (losses, True)) -> None:
                assert await losses_of(world) == expected

            await eventually(is_put_off)
            await world.rows("UPDATE blobs SET facts_due_at = now(), losses_count_from = now()")

        async def is_given_up() -> None:
            assert [row["facts_due_at"] for row in await world.rows("SELECT facts_due_at FROM blobs")] == [None]

        await eventually(is_given_up)

    async def test_after_a_loss_it_is_looked_into_again(self, world: Any, eventually: Any, uploaded: Any) -> None:
        previews = world.app.state.previews
        right, previews._inspector = previews._inspector, Lost()
        file_id = await uploaded(photo())

        async def is_put_off() -> None:
            assert await losses_of(world) == (1, True)

        await eventually(is_put_off)
        previews._inspector = right
        await world.rows("UPDATE blobs SET facts_due_at = now()")

        async def examined() -> None:
            assert (await get(world, f"/v1/files/{file_id}/info")).json()["width"] == 600

        await eventually(examined)
        assert await losses_of(world) == (0, None)


class TestThumbnails:
    async def test_a_worker_that_got_lost_is_no_answer_for_ever(self, world: Any, uploaded: Any) -> None:
        previews = world.app.state.previews
        right, previews._inspector = previews._inspector, Lost()
        path = f"/v1/files/{await uploaded(photo())}/thumbnail"
        for _ in range(MOST_LOSSES + 1):
            assert (await get(world, path)).status_code == 503, "losses that come at once count once"
        previews._inspector = right
        assert (await get(world, path)).status_code == 200

    async def test_after_many_losses_there_is_none(self, world: Any, uploaded: Any) -> None:
        world.app.state.previews._inspector = Lost()
        path = f"/v1/files/{await uploaded(photo())}/thumbnail"
        assert (await get(world, path)).status_code == 503
        most = MOST_LOSSES - 1
        await world.rows(f"UPDATE blobs SET worker_losses = {most}, losses_count_from = now()")  # noqa: S608
        assert (await get(world, path)).status_code == 422
        world.app.state.previews._inspector = None
        assert (await get(world, path)).status_code == 422

    async def test_all_who_ask_at_once_share_one_worker(self, world: Any, uploaded: Any) -> None:
        class Counting:
            def __init__(self, inspector: Any) -> None:
                self.made = 0
                self._inspector = inspector

            async def inspect(self, kind: Kind, data: Any, size: ThumbnailSize | None, user_id: str) -> Inspected:
                self.made += size is not None
                found: Inspected = await self._inspector.inspect(kind, data, size, user_id)
                return found

        previews = world.app.state.previews
        previews._inspector = counting = Counting(previews._inspector)
        file = await world.app.state.access.readable(await uploaded(photo()), "alice")
        made = await asyncio.gather(*(previews.thumbnail(file, ThumbnailSize.MEDIUM, f"u{n}") for n in range(50)))
        assert (len(set(made)), counting.made) == (1, 1)

    async def test_who_waits_for_a_worker_holds_no_connection_to_s3(self, world: Any, uploaded: Any) -> None:
        class Busy:
            async def inspect(self, *_: object) -> Inspected:
                raise WorkersBusy("too many files are being looked into")

        class Untouched:
            async def get(self, *_: object) -> None:
                raise AssertionError("opened for a worker that may never come")

        previews = world.app.state.previews
        previews._inspector, previews._storage = Busy(), Untouched()
        answer = await get(world, f"/v1/files/{await uploaded(photo())}/thumbnail")
        assert (answer.status_code, answer.json()["code"]) == (503, ErrorCode.UNAVAILABLE)

    async def test_one_is_made_when_it_is_asked_for_and_kept(self, world: Any, uploaded: Any) -> None:
        file_id = await uploaded(photo())
        first = await get(world, f"/v1/files/{file_id}/thumbnail")
        assert (first.status_code, first.headers["content-type"]) == (200, "image/jpeg")
        with Image.open(io.BytesIO(first.content)) as shown:
            assert (shown.size, len(shown.getexif())) == ((160, 320), 0)
        kept = [key for key in world.bucket.objects() if key.startswith("thumbnails/")]
        assert len(kept) == 1
        # the photo itself is not needed any more
        world.bucket.overwrite(object_key(file_id), b"no photo")
        assert (await get(world, f"/v1/files/{file_id}/thumbnail")).content == first.content
        assert (await get(world, f"/v1/files/{file_id}/info")).json()["height"] == 1200

    async def test_it_goes_with_the_last_file_that_has_these_bytes(
        self, world: Any, uploaded: Any, eventually: Any
    ) -> None:
        data = photo()
        files = [await uploaded(data), await uploaded(data)]
        await get(world, f"/v1/files/{files[1]}/thumbnail")

        async def one_photo_and_its_thumbnail() -> None:
            assert len(world.bucket.objects()) == 2

        await eventually(one_photo_and_its_thumbnail)
        for file_id, left in zip(files, (2, 0), strict=True):
            async with world.client("alice") as alice:
                assert (await alice.delete(f"/v1/files/{file_id}")).status_code == 204
            await world.app.state.disposal.sweep()
            assert len(world.bucket.objects()) == left

    async def test_each_size_is_made_for_itself(self, world: Any, uploaded: Any) -> None:
        file_id = await uploaded(photo())
        for size, expected in ((128, (64, 128)), (960, (480, 960)), (128, (64, 128))):
            answer = await get(world, f"/v1/files/{file_id}/thumbnail?size={size}")
            with Image.open(io.BytesIO(answer.content)) as shown:
                assert shown.size == expected
        assert (await get(world, f"/v1/files/{file_id}/thumbnail?size=300")).status_code == 422

    async def test_who_has_it_is_told_so(self, world: Any, uploaded: Any) -> None:
        path = f"/v1/files/{await uploaded(photo())}/thumbnail"
        etag = (await get(world, path)).headers["etag"]
        assert (await get(world, path, **{"If-None-Match": etag})).status_code == 304
        assert (await get(world, f"{path}?size=128", **{"If-None-Match": etag})).status_code == 200

    @pytest.mark.parametrize("data", [b"only text", photo()[:300], recording(10)], ids=["text", "damaged", "recording"])
    async def test_what_is_no_image_has_none(self, world: Any, uploaded: Any, data: bytes) -> None:
        file_id = await uploaded(data)
        for _ in range(2):
            refused = await get(world, f"/v1/files/{file_id}/thumbnail")
            assert (refused.status_code, refused.json()["code"]) == (422, ErrorCode.FIELD_INVALID)
            assert refused.json()["field"] == "file_id"

    async def test_a_picture_without_one_keeps_its_size_and_is_not_tried_again(
        self, world: Any, eventually: Any, uploaded: Any
    ) -> None:
        out = io.BytesIO()
        Image.effect_noise((40, 30), 100).save(out, "PNG")
        file_id = await uploaded(out.getvalue()[:200])

        async def told() -> tuple[int, int]:
            facts = (await get(world, f"/v1/files/{file_id}/info")).json()
            return facts["width"], facts["height"]

        async def measured() -> None:
            assert await told() == (40, 30)

        await eventually(measured)
        assert (await get(world, f"/v1/files/{file_id}/thumbnail")).status_code == 422
        assert await told() == (40, 30)
        world.app.state.previews._inspector = None
        assert (await get(world, f"/v1/files/{file_id}/thumbnail")).status_code == 422

    async def test_a_file_that_is_too_large_has_none(self, world: Any, eventually: Any, uploaded: Any) -> None:
        file_id = await uploaded(photo() + bytes(MAX_INSPECTED_BYTES))
        assert (await get(world, f"/v1/files/{file_id}/thumbnail")).status_code == 422

        async def left_alone() -> None:
            assert (await world.rows("SELECT facts_due_at FROM blobs"))[0]["facts_due_at"] is None

        await eventually(left_alone)

    async def test_a_stranger_sees_none(self, world: Any, uploaded: Any) -> None:
        file_id = await uploaded(photo())
        assert (await get(world, f"/v1/files/{file_id}/thumbnail")).status_code == 200
        for wanted in (file_id, "0" * 32):
            refused = await get(world, f"/v1/files/{wanted}/thumbnail", user_id="mallory")
            assert (refused.status_code, refused.json()["code"]) == (404, ErrorCode.FILE_UNKNOWN)
