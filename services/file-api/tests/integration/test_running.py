"""How many uploads and downloads run at once, and what becomes of those that stand still."""

import asyncio
import socket
from contextlib import AsyncExitStack, suppress
from datetime import timedelta
from typing import Any

import httpx
import pytest
from tlim_protocol.errors import ErrorCode

UPLOADS = ("/v1/files", "/p/upload/mobileFileUpload")
FORM_HEAD = b'--x\r\nContent-Disposition: form-data; name="f"; filename="a"\r\n'
FORM_TYPE = "Content-Type: multipart/form-data; boundary=x\r\n"
LARGE = bytes(20_000_000)

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def stall(world: Any, user_id: str, path: str = UPLOADS[0], body: bytes = b"x", headers: str = "") -> Connection:
    """Begin an upload and send nothing more of it."""
    reader, writer = await asyncio.open_connection("127.0.0.1", world.port)
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {user_id}\r\n{headers}Content-Length: 900\r\n\r\n"
    writer.write(head.encode() + body)
    await writer.drain()
    return reader, writer


async def hang(world: Any, path: str) -> socket.socket:
    """Begin a download and take nothing of it."""
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(client, ("127.0.0.1", world.port))
    await loop.sock_sendall(client, f"GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer alice\r\n\r\n".encode())
    return client


async def close(*connections: Connection) -> None:
    for _, writer in connections:
        writer.close()
        await writer.wait_closed()


def running(world: Any) -> tuple[int, int]:
    """Uploads and downloads."""
    state = world.app.state
    return state.admission._running._users.total(), state.downloads._users.total()


class TestBounds:
    @pytest.fixture
    def changed_settings(self) -> dict[str, Any]:
        return {
            "running_uploads_per_user": 2, "running_uploads": 3,
            "running_downloads_per_user": 2, "running_downloads": 3,
        }  # fmt: skip

    @pytest.mark.parametrize("path", UPLOADS)
    async def test_uploads_that_stand_still_keep_out_only_a_few_more(
        self, world: Any, eventually: Any, path: str
    ) -> None:
        stalled = [
            await stall(world, "alice", path),
            await stall(world, "alice", path, FORM_HEAD, FORM_TYPE),  # its file has not even begun
        ]

        async def two_run() -> None:
            assert running(world) == (2, 0)

        await eventually(two_run)
        async with world.client("alice") as alice, world.client("bob") as bob:
            refused = await alice.post(path, content=b"one more")
            assert (refused.status_code, refused.json()["code"]) == (429, ErrorCode.TOO_MANY_REQUESTS)
            assert int(refused.headers["Retry-After"]) > 0
            assert (await bob.post(path, content=b"bob's")).is_success
            stalled.append(await stall(world, "carol", path))

            async def three_run() -> None:
                assert running(world) == (3, 0)

            await eventually(three_run)
            busy = await bob.post(path, content=b"bob's")
            assert (busy.status_code, busy.json()["code"]) == (503, ErrorCode.UNAVAILABLE)
            await close(*stalled)

            async def none_runs() -> None:
                assert running(world) == (0, 0)

            await eventually(none_runs)
            assert (await alice.post(path, content=b"one more")).is_success

    async def test_what_is_completed_counts_as_it_runs(self, world: Any, eventually: Any) -> None:
        async with world.client("alice") as alice, httpx.AsyncClient(timeout=60) as s3:
            upload = (await alice.post("/v1/uploads", json={"name": "a", "size": 3})).json()
            put = upload["single"]
            assert (await s3.put(put["url"], content=b"abc", headers=put["headers"])).is_success
            stalled = [await stall(world, "alice") for _ in range(2)]

            async def two_run() -> None:
                assert running(world) == (2, 0)

            await eventually(two_run)
            path = f"/v1/uploads/{upload['upload_id']}/complete"
            refused = await alice.post(path)
            assert (refused.status_code, refused.json()["code"]) == (429, ErrorCode.TOO_MANY_REQUESTS)
            assert int(refused.headers["Retry-After"]) > 0
            await close(*stalled)

            async def none_runs() -> None:
                assert running(world) == (0, 0)

            await eventually(none_runs)
            assert (await alice.post(path)).json()["size"] == 3

    async def test_downloads_that_stand_still_keep_out_only_a_few_more(self, world: Any, eventually: Any) -> None:
        async with world.client("alice") as alice, AsyncExitStack() as stack:
            path = f"/v1/files/{(await alice.post('/v1/files', content=LARGE)).json()['file_id']}"
            for _ in range(2):
                stack.callback((await hang(world, path)).close)

            async def two_run() -> None:
                assert running(world) == (0, 2)

            await eventually(two_run)
            refused = await alice.get(path)
            assert (refused.status_code, refused.json()["code"]) == (429, ErrorCode.TOO_MANY_REQUESTS)
            assert int(refused.headers["Retry-After"]) > 0
            legacy = await alice.get(f"/p/upload/mobileFileDownload?fileId={path.rpartition('/')[2]}")
            assert (legacy.status_code, legacy.json()["code"]) == (429, ErrorCode.TOO_MANY_REQUESTS)
            assert (await alice.head(path)).status_code == 200

    async def test_what_ends_counts_no_more(self, world: Any, eventually: Any) -> None:
        async with world.client("alice") as alice:
            path = f"/v1/files/{(await alice.post('/v1/files', content=b'short')).json()['file_id']}"
            for _ in range(5):
                assert (await alice.get(path)).content == b"short"
                assert (await alice.get(path, headers={"Range": "bytes=9-"})).status_code == 416
                assert (await alice.post("/v1/files", content=b"")).status_code == 422

        async def none_runs() -> None:  # an answer is there a moment before its request has ended
            assert running(world) == (0, 0)

        await eventually(none_runs)


class TestPatience:
    @pytest.fixture
    def changed_settings(self) -> dict[str, Any]:
        return {"stall_timeout": timedelta(seconds=4)}  # an upload of 20 MB has to go on without such a pause

    @pytest.mark.parametrize(("body", "headers"), [(b"x", ""), (FORM_HEAD, FORM_TYPE)], ids=["raw", "form"])
    async def test_an_upload_that_stands_still_is_given_up(self, world: Any, body: bytes, headers: str) -> None:
        stalled = await stall(world, "alice", body=body, headers=headers)
        assert b" 408 " in await stalled[0].readline()
        await close(stalled)
        await world.nothing_left()
        assert running(world) == (0, 0)

    async def test_a_download_of_which_nothing_is_taken_gives_its_connection_back(
        self, world: Any, eventually: Any
    ) -> None:
        async with world.client("alice") as alice:
            path = f"/v1/files/{(await alice.post('/v1/files', content=LARGE)).json()['file_id']}"
            with await hang(world, path):
                sessions = world.app.state.files._storage.client._endpoint.http_session._sessions.values()

                async def given_up() -> None:
                    assert await world.rows("SELECT * FROM outbox") == []
                    events = await world.file_events()
                    assert len(events) == 2  # uploaded; the download has begun
                    assert running(world) == (0, 0)
                    assert not any(session.connector._acquired for session in sessions)

                await eventually(given_up)


class TestPace:
    @pytest.fixture
    def changed_settings(self) -> dict[str, Any]:
        return {"stall_timeout": timedelta(seconds=3), "min_bytes_per_second": 1_000_000}

    @pytest.mark.parametrize(("body", "headers"), [(b"x", ""), (FORM_HEAD, FORM_TYPE)], ids=["raw", "form"])
    async def test_an_upload_that_drips_is_given_up_and_its_slot_is_free(
        self, world: Any, body: bytes, headers: str
    ) -> None:
        reader, writer = await stall(world, "alice", body=body, headers=headers)
        answer = asyncio.create_task(reader.readline())
        while not answer.done():
            writer.write(b"x")
            await asyncio.wait([answer], timeout=0.05)
        assert b" 408 " in answer.result()
        await close((reader, writer))
        await world.nothing_left()
        assert running(world) == (0, 0)

    async def test_a_download_that_drips_gives_its_slot_back(self, world: Any, eventually: Any) -> None:
        async with world.client("alice") as alice:
            path = f"/v1/files/{(await alice.post('/v1/files', content=LARGE)).json()['file_id']}"
        loop = asyncio.get_running_loop()
        with await hang(world, path) as client:

            async def given_up() -> None:
                with suppress(ConnectionError):
                    await loop.sock_recv(client, 100)  # at 2 KB/s
                assert len(await world.file_events()) == 2
                assert running(world) == (0, 0)

            await eventually(given_up)


class TestUploadTimeout:
    @pytest.fixture
    def changed_settings(self) -> dict[str, Any]:
        return {"upload_timeout": timedelta(seconds=0.3)}

    async def test_the_beginning_of_a_form_has_to_come_in_time_too(self, world: Any) -> None:
        stalled = await stall(world, "alice", body=FORM_HEAD, headers=FORM_TYPE)
        assert b" 408 " in await stalled[0].readline()
        await close(stalled)
