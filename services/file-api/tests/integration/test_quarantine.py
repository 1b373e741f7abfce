"""Files and the virus scanner: nobody downloads what was not scanned, and nobody what was found."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from file_api.app import create_app
from file_api.keep import quarantine
from tlim_protocol.errors import ErrorCode
from tlim_protocol.events import FileQuestion, FilesAnswer, FilesQuestion
from tlim_protocol.subjects import Rpc

QUICKLY = {"scan_interval": timedelta(seconds=0.1)}


async def upload(client: httpx.AsyncClient, content: bytes) -> str:
    answer = await client.post("/v1/files", content=content)
    assert answer.status_code == 201, answer.text
    identifier: str = answer.json()["file_id"]
    return identifier


async def scan_of(client: httpx.AsyncClient, file_id: str) -> str:
    answer = await client.get(f"/v1/files/{file_id}/info")
    state: str = answer.json()["scan"]
    return state


async def sendable(world: Any, file_id: str) -> list[str]:
    question = FilesQuestion(asks=[FileQuestion(file_id=file_id, user_id="alice")])
    return FilesAnswer.from_bytes(await world.tests.request(Rpc.FILE_CHECK, question.to_bytes(), timeout_s=30)).existing


class TestWithScanner:
    @pytest.fixture
    def changed_settings(self, scanner_socket: Path) -> dict[str, Any]:
        return {"clamd_socket": scanner_socket, **QUICKLY}

    async def test_what_is_clean_can_be_downloaded_soon(self, world: Any, eventually: Any) -> None:
        async with world.client("alice") as alice:
            file_id = await upload(alice, b"harmless")

            async def released() -> None:
                assert (await alice.get(f"/v1/files/{file_id}")).content == b"harmless"

            await eventually(released)
            assert await scan_of(alice, file_id) == "clean"

    async def test_what_has_a_virus_is_removed_and_refused_when_it_comes_again(
        self, world: Any, eventually: Any, virus: bytes
    ) -> None:
        async with world.client("alice") as alice, world.client("bob") as bob:
            file_id = await upload(alice, virus)
            world.store.sees.add((file_id, "bob"))

            async def found() -> None:
                assert await scan_of(alice, file_id) == "infected"
                assert world.bucket.objects() == []

            await eventually(found)
            for client in (alice, bob):
                refused = await client.get(f"/v1/files/{file_id}")
                assert (refused.status_code, refused.json()["code"]) == (404, ErrorCode.FILE_UNKNOWN)
                legacy = await client.get(f"/p/upload/mobileFileDownload?fileId={file_id}")
                assert legacy.json()["result_detail"] == ErrorCode.FILE_UNKNOWN
            assert 'tlim_file_api_scans_total{outcome="infected"} 1.0' in (await alice.get("/metrics")).text
            again = await bob.post("/v1/files", content=virus)
            assert (again.status_code, again.json()["code"]) == (422, ErrorCode.FIELD_INVALID)
            assert (await alice.get("/v1/files/usage")).json()["stored_bytes"] == 0
            assert await sendable(world, file_id) == []
            assert (await alice.delete(f"/v1/files/{file_id}")).status_code == 204
            assert (await alice.post("/v1/files", content=virus)).status_code == 422  # its digest is remembered
        assert [row["scan"] for row in await world.rows("SELECT scan FROM blobs")] == ["infected"]
        assert (await world.rows("SELECT * FROM discarded"), world.bucket.objects()) == ([], [])

    async def test_a_direct_upload_is_scanned_too(self, world: Any, eventually: Any, virus: bytes) -> None:
        async with world.client("alice") as alice:
            told = (await alice.post("/v1/uploads", json={"name": "a", "size": len(virus)})).json()
            async with httpx.AsyncClient(timeout=60) as anybody:
                put = await anybody.put(told["single"]["url"], content=virus, headers=told["single"]["headers"])
                assert put.is_success
            completed = await alice.post(f"/v1/uploads/{told['upload_id']}/complete")
            assert completed.json()["scan"] == "waiting"

            async def found() -> None:
                refused = await alice.get(f"/v1/files/{told['file_id']}/url")
                assert (refused.status_code, refused.json()["code"]) == (404, ErrorCode.FILE_UNKNOWN)

            await eventually(found)


class TestScannerAway:
    """Where the socket is, nobody listens until a test lets somebody."""

    @pytest.fixture
    def changed_settings(self, folder: Path) -> dict[str, Any]:
        return {"clamd_socket": folder / "clamd.sock", **QUICKLY}

    async def test_nobody_downloads_what_waits_and_everybody_is_told_when_to_ask_again(self, world: Any) -> None:
        async with world.client("alice") as alice, world.client("bob") as bob, world.client("eve") as eve:
            file_id = await upload(alice, b"harmless?")
            world.store.sees.add((file_id, "bob"))
            doors = (
                f"/v1/files/{file_id}", f"/v1/files/{file_id}/url", f"/v1/files/{file_id}/thumbnail",
                f"/p/upload/mobileFileDownload?fileId={file_id}",
            )  # fmt: skip
            for client in (alice, bob):
                for door in doors:
                    refused = await client.get(door)
                    assert (refused.status_code, refused.json()["code"]) == (503, ErrorCode.UNAVAILABLE), door
                    assert refused.headers["Retry-After"] == "5"
                assert await scan_of(client, file_id) == "waiting"
            assert (await eve.get(f"/v1/files/{file_id}")).status_code == 404
            assert (await alice.get("/readyz")).status_code == 200
        assert await sendable(world, file_id) == [file_id]

    async def test_it_is_scanned_once_when_the_scanner_is_back(
        self, world: Any, eventually: Any, folder: Path, fake_clamd: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(quarantine, "SOON", QUICKLY["scan_interval"])
        async with world.client("alice") as alice, world.client("bob") as bob:
            files = [(client, await upload(client, b"harmless")) for client in (alice, bob)]
            async with fake_clamd.listening(folder / "clamd.sock"):

                async def released() -> None:
                    assert [await scan_of(client, file_id) for client, file_id in files] == ["clean", "clean"]

                await eventually(released)
                assert (await bob.get(f"/v1/files/{files[1][1]}")).content == b"harmless"
                assert fake_clamd.scanned == [len(b"harmless")]

    async def test_what_cannot_be_scanned_stays_where_it_is_and_stops_nobody(
        self, world: Any, eventually: Any, folder: Path, fake_clamd: Any
    ) -> None:
        fake_clamd.answer = b"stream: cannot do this one ERROR"
        async with world.client("alice") as alice, fake_clamd.listening(folder / "clamd.sock"):
            odd = await upload(alice, b"odd")

            async def tried() -> None:
                assert fake_clamd.scanned == [3]

            await eventually(tried)
            fake_clamd.answer = None
            even = await upload(alice, b"even")

            async def released() -> None:
                assert await scan_of(alice, even) == "clean"

            await eventually(released)
            assert await scan_of(alice, odd) == "waiting"


async def test_what_a_killed_process_was_scanning_is_scanned_by_the_next(
    servers: Any, eventually: Any, folder: Path, fake_clamd: Any
) -> None:
    settings = servers.settings(clamd_socket=folder / "clamd.sock", **QUICKLY)
    async with servers.running(create_app(settings)), servers.client("") as client:
        del client.headers["Authorization"]
        assert (await client.post("/p/upload/mobileFileUpload?user_id=alice", content=b"bytes")).is_success
    async with fake_clamd.listening(folder / "clamd.sock"), servers.running(create_app(settings)):

        async def scanned() -> None:
            await servers.rows("UPDATE blobs SET scan_due_at = now() WHERE scan = 'waiting'")
            assert [row["scan"] for row in await servers.rows("SELECT scan FROM blobs")] == ["clean"]

        await eventually(scanned)


class TestLimits:
    @pytest.fixture
    def changed_settings(self, folder: Path) -> dict[str, Any]:
        return {"clamd_socket": folder / "clamd.sock", "scan_max_bytes": 10, **QUICKLY}

    async def test_larger_files_are_not_scanned(self, world: Any) -> None:
        async with world.client("alice") as alice:
            file_id = await upload(alice, bytes(11))
            assert (await alice.get(f"/v1/files/{file_id}")).status_code == 200
            assert await scan_of(alice, file_id) == "skipped"

    async def test_bytes_that_came_before_there_was_a_scanner_are_scanned_when_they_come_again(
        self, world: Any
    ) -> None:
        async with world.client("alice") as alice:
            old = await upload(alice, b"bytes")
            await world.rows("UPDATE blobs SET scan = 'skipped', scan_due_at = NULL")
            assert (await alice.get(f"/v1/files/{old}")).status_code == 200
            await upload(alice, b"bytes")
            assert (await alice.get(f"/v1/files/{old}")).status_code == 503
