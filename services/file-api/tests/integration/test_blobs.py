"""The same bytes are kept once, for all uploaders and at any time."""

import asyncio
import hashlib
from typing import Any

import asyncpg
import pytest
from file_api.files import new_file_id, object_key
from file_api.keep.disposal import AT_ONCE
from tlim_devstack.pytest_plugin import MakeDatabase
from tlim_runtime.migrations import upgrade

BYTES = b"the same for everybody"


async def upload(world: Any, user_id: str, content: bytes = BYTES, name: str = "a.txt") -> dict[str, Any]:
    async with world.client(user_id) as client:
        answer = await client.post("/v1/files", files={"file": (name, content, "text/plain")})
        assert answer.status_code == 201, answer.text
        told: dict[str, Any] = answer.json()
        assert (await client.get(f"/v1/files/{told['file_id']}")).content == content
    return told


async def test_the_same_bytes_are_one_object_with_two_names_and_owners(world: Any, eventually: Any) -> None:
    first, second = await upload(world, "alice"), await upload(world, "bob", name="b.txt")
    assert first["file_id"] != second["file_id"]
    assert (second["name"], second["owner"], second["sha256"]) == ("b.txt", "bob", first["sha256"])

    async def one_object() -> None:
        assert world.bucket.objects() == [object_key(first["file_id"])]
        assert await world.rows("SELECT * FROM discarded") == []

    await eventually(one_object)


async def test_known_bytes_are_answered_while_s3_does_not_let_go_of_the_second_copy(
    world: Any, eventually: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    disposal, go_on = world.app.state.disposal, asyncio.Event()
    let_go = disposal._storage.discard

    async def discard(key: str) -> None:
        await go_on.wait()
        await let_go(key)

    monkeypatch.setattr(disposal._storage, "discard", discard)
    first, *others = [await upload(world, f"user{number}") for number in range(AT_ONCE + 3)]
    assert len(world.bucket.objects()) == 1 + len(others)
    go_on.set()

    async def two_are_left_to_the_sweep() -> None:
        assert len(await world.rows("SELECT * FROM discarded")) == len(others) - AT_ONCE

    await eventually(two_are_left_to_the_sweep)
    assert await disposal.sweep() == len(others) - AT_ONCE
    assert world.bucket.objects() == [object_key(first["file_id"])]


async def test_a_process_that_ends_leaves_what_it_was_removing_to_a_sweep(
    world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    disposal, begun = world.app.state.disposal, asyncio.Event()
    let_go = disposal._storage.discard

    async def discard(_key: str) -> None:
        begun.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(disposal._storage, "discard", discard)
    first, _ = await upload(world, "alice"), await upload(world, "bob")
    await begun.wait()
    await disposal.close()
    monkeypatch.setattr(disposal._storage, "discard", let_go)
    await world.rows("UPDATE discarded SET not_before = now()")  # its lease is over
    assert await disposal.sweep() == 1
    assert world.bucket.objects() == [object_key(first["file_id"])]


@pytest.mark.parametrize("size", [100, 9_000_000], ids=["one request", "parts"])
async def test_uploads_of_the_same_bytes_at_the_same_time_are_one_object(
    world: Any, eventually: Any, size: int
) -> None:
    told = await asyncio.gather(*(upload(world, f"user{number}", bytes(size)) for number in range(6)))
    assert len({one["file_id"] for one in told}) == 6
    assert len(await world.rows("SELECT * FROM blobs")) == 1
    assert await world.rows("SELECT * FROM uploads") == []

    async def one_object() -> None:
        await world.app.state.disposal.sweep()
        assert len(world.bucket.objects()) == 1

    await eventually(one_object)


async def test_an_object_that_was_not_removed_at_once_is_swept(world: Any) -> None:
    stored = await upload(world, "alice")
    key = object_key(new_file_id())
    world.bucket.put(key)
    await world.rows("INSERT INTO discarded (object_key, not_before) VALUES ($1, now())", key)
    assert await world.app.state.disposal.sweep() == 1
    assert world.bucket.objects() == [object_key(stored["file_id"])]


async def test_an_object_somebody_may_still_write_to_is_left_until_he_may_not(world: Any) -> None:
    key = object_key(new_file_id())
    world.bucket.put(key)
    await world.rows("INSERT INTO discarded (object_key, not_before) VALUES ($1, now() + interval '1 hour')", key)
    assert await world.app.state.disposal.sweep() == 0
    assert world.bucket.objects() == [key]


async def test_files_of_the_release_before_are_moved(make_empty_database: MakeDatabase) -> None:
    url = make_empty_database("file_api")
    await asyncio.to_thread(upgrade, "file_api", url, "20261123_files")
    connection = await asyncpg.connect(url.replace("+asyncpg", ""))
    try:
        add = "INSERT INTO files VALUES ($1, 'alice', $2, now(), $3, 'text/plain', 3, $4, now())"
        one, same, other, pending = sorted(new_file_id() for _ in range(4))
        for file_id, content in ((one, b"one"), (same, b"one"), (other, b"two")):
            await connection.execute(add, file_id, "stored", "name", hashlib.sha256(content).hexdigest())
        await connection.execute(add, pending, "pending", None, None)
        await asyncio.to_thread(upgrade, "file_api", url)
        files = await connection.fetch("SELECT file_id, blob_id FROM files WHERE sent_at IS NOT NULL ORDER BY file_id")
        discarded = await connection.fetch("SELECT object_key FROM discarded")
        uploads = await connection.fetch("SELECT upload_id FROM uploads")
    finally:
        await connection.close()
    assert [tuple(row) for row in files] == [(one, one), (same, one), (other, other)]
    assert [tuple(row) for row in discarded] == [(object_key(same),)]
    assert [tuple(row) for row in uploads] == [(pending,)]
