"""Erasing a person, on the real tables of all services: what goes, what stays, and a run that is broken off."""

import json
from typing import Any

import pytest
from file_api.files import Blob
from message_store.locks import SEQ_LOCK
from tlim_admin import removal
from tlim_admin.backup.manifest import BackupError
from tlim_admin.backup.objects import thumbnail_keys_of
from tlim_admin.people import erase as erasing
from tlim_admin.people import files_tables, messages_tables, sessions_tables
from tlim_admin.people.erase import Erasure, erase, plan
from tlim_admin.progress import steps

USERS = """
    INSERT INTO users VALUES ('alice', 'Alice Liddell', true, 1, 1), ('bob', 'Bob', true, 1, 1);
    INSERT INTO audit (at, actor, action, target, detail, request_id)
        VALUES (1, 'root', 'user.put', 'alice', '{"name": "Alice Liddell", "created": true}', 'r')"""
LOG = """
    INSERT INTO conversations (conversation_id, created_at, last_seq) VALUES ('u:alice:bob', 1, 20);
    INSERT INTO members VALUES ('u:alice:bob', 'alice', 0), ('u:alice:bob', 'bob', 0);
    INSERT INTO messages (seq, conversation_id, sender, recipient, audience, msg_id, msg_type, is_chat, version, body,
                          msg_time, location, stored_at)
        SELECT n, 'u:alice:bob', CASE WHEN n % 2 = 1 THEN 'alice' ELSE 'bob' END,
               CASE WHEN n % 2 = 1 THEN 'bob' ELSE 'alice' END, 1, 'm' || n, 'MTT-000', n < 20, '',
               '[{"text": "words"}]', '', 'web', n
        FROM generate_series(1, 20) AS n;
    INSERT INTO search_documents SELECT n, ARRAY[1] FROM generate_series(1, 20) AS n;
    INSERT INTO recalls VALUES (1000, 'u:alice:bob', 'alice', 'm0', 'MTT-000', 1, 2, '[{"text": "recalled"}]');
    INSERT INTO read_cursors VALUES ('alice', 'u:alice:bob', 4), ('bob', 'u:alice:bob', 5);
    INSERT INTO mailboxes (user_id, taken_seq) VALUES ('alice', 3), ('bob', 3);
    INSERT INTO message_files VALUES ('own', 1), ('sent-on', 3), ('sent-on', 4), ('shared-bytes', 5)"""
FILES = """
    INSERT INTO blobs (blob_id, sha256, size, stored_at, scan, thumbnail_type)
        VALUES ('b1', '1', 10, now(), 'skipped', 'image/jpeg'), ('b2', '2', 20, now(), 'skipped', NULL),
               ('b3', '3', 30, now(), 'clean', NULL), ('b4', '4', 40, now(), 'infected', NULL);
    INSERT INTO files (file_id, owner_id, blob_id, name, media_type, size, stored_at)
        VALUES ('own', 'alice', 'b1', 'a', 'image/png', 10, now()),
               ('sent-on', 'alice', 'b2', 'b', 'text/plain', 20, now()),
               ('shared-bytes', 'alice', 'b3', 'c', 'text/plain', 30, now()),
               ('bobs', 'bob', 'b3', 'c', 'text/plain', 30, now()),
               ('virus', 'alice', 'b4', 'd', 'text/plain', 40, now());
    INSERT INTO uploads (upload_id, owner_id, kind, began_at, expires_at, reserved_bytes)
        VALUES ('u1', 'alice', 'stream', now(), now() + interval '1 day', 0),
               ('u2', 'bob', 'stream', now(), now() + interval '1 day', 0)"""


class AccountsInMemory:
    """The API of an XMPP server, as far as it removes accounts."""

    def __init__(self) -> None:
        self.removed: list[str] = []

    def remove(self, user: str) -> None:
        self.removed.append(user)


async def fill(data: Any) -> None:
    await data.sessions.execute(USERS)
    await data.store.execute(LOG)
    await data.files.execute(FILES)


async def run(data: Any, accounts: Any = None) -> Erasure:
    with steps() as shown:
        return await erase("alice", data.logins, accounts, shown)


async def column(connection: Any, statement: str) -> list[Any]:
    return [row[0] for row in await connection.fetch(statement)]


async def everything(data: Any) -> list[Any]:
    """What is in all tables, without the times and the entries of the audit."""
    return [
        await data.sessions.fetch("SELECT user_id, name, active FROM users ORDER BY 1"),
        await data.store.fetch("SELECT seq, sender, body::text, recalled_at IS NULL FROM messages ORDER BY seq"),
        *[
            sorted(map(str, await data.store.fetch(f"TABLE {one}")))
            for one in ("read_cursors", "search_documents", "mailboxes", "message_files")
        ],
        await data.files.fetch("SELECT file_id FROM files ORDER BY 1"),
        await data.files.fetch("SELECT blob_id FROM blobs ORDER BY 1"),
        await data.files.fetch("SELECT object_key FROM discarded ORDER BY 1"),
    ]


async def test_what_a_person_wrote_goes_and_the_history_of_others_keeps_its_places(data: Any) -> None:
    await fill(data)
    accounts = AccountsInMemory()

    assert await run(data, accounts) == Erasure(messages=10, files=3, bytes=10, kept_files=1)

    rows = await data.store.fetch("SELECT seq, sender, body::text, recalled_at FROM messages ORDER BY seq")
    assert [row["seq"] for row in rows] == list(range(1, 21))
    assert all((row["body"] == "[]") == (row["sender"] == "alice") for row in rows)
    assert all((row["recalled_at"] is not None) == (row["sender"] == "alice") for row in rows)
    assert await column(data.store, "SELECT seq FROM search_documents ORDER BY 1") == list(range(2, 21, 2))
    assert await column(data.store, "SELECT body FROM recalls") == [None]
    assert await column(data.store, "SELECT user_id FROM read_cursors") == ["bob"]
    assert await column(data.store, "SELECT user_id FROM mailboxes") == ["bob"]
    assert accounts.removed == ["alice"]


async def test_bytes_stay_while_somebody_elses_file_or_message_has_them(data: Any) -> None:
    await fill(data)

    await run(data)

    assert await column(data.files, "SELECT file_id FROM files ORDER BY 1") == ["bobs", "sent-on"]
    assert await column(data.files, "SELECT blob_id FROM blobs ORDER BY 1") == ["b2", "b3", "b4"]  # b4: refused again
    gone = Blob("b1", "1", 10, thumbnail_type="image/jpeg")
    assert await column(data.files, "SELECT object_key FROM discarded ORDER BY 1") == gone.object_keys[:1] + sorted(
        gone.object_keys[1:]
    )
    assert await column(data.files, "SELECT upload_id FROM uploads WHERE expires_at > now()") == ["u2"]


async def test_the_name_goes_also_from_the_audit_and_the_audit_tells_what_was_erased(data: Any) -> None:
    await fill(data)

    await run(data)

    (alice,) = await data.sessions.fetch("SELECT name, active FROM users WHERE user_id = 'alice'")
    assert tuple(alice) == (sessions_tables.ERASED_NAME, False)
    entries = await data.sessions.fetch("SELECT action, actor, target, detail::text FROM audit ORDER BY id")
    assert [entry["action"] for entry in entries] == ["user.put", "user.deactivated", "user.erased"]
    assert "Liddell" not in str(entries)
    assert json.loads(entries[-1]["detail"]) == {"messages": 10, "files": 3, "bytes": 10, "kept_files": 1}


@pytest.mark.parametrize(
    ("module", "step"),
    [
        (sessions_tables, "deactivate"), (messages_tables, "empty_messages"), (files_tables, "end_uploads"),
        (removal, "remove"), (messages_tables, "forget"), (sessions_tables, "forget"),
    ],
)  # fmt: skip
async def test_a_run_that_was_broken_off_is_finished_by_the_next(
    data: Any, monkeypatch: pytest.MonkeyPatch, module: Any, step: str
) -> None:
    monkeypatch.setattr(erasing, "BATCH", 3)
    await fill(data)
    real = getattr(module, step)

    async def breaks_off(*arguments: Any) -> None:
        await real(*arguments)
        raise KeyboardInterrupt

    with monkeypatch.context() as broken:
        broken.setattr(module, step, breaks_off)
        with pytest.raises(KeyboardInterrupt):
            await run(data)
    await run(data)
    finished = await everything(data)

    assert await run(data) == Erasure(messages=0, files=0, kept_files=1)
    assert await everything(data) == finished
    assert await messages_tables.written(data.store, "alice") == 0
    assert await column(data.files, "SELECT file_id FROM files ORDER BY 1") == ["bobs", "sent-on"]
    assert await column(data.sessions, "SELECT name FROM users ORDER BY user_id") == [
        sessions_tables.ERASED_NAME,
        "Bob",
    ]


async def test_a_batch_reads_nothing_of_those_before_it(data: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(erasing, "BATCH", 3)
    await fill(data)
    begun: list[int] = []
    real = messages_tables.empty_messages

    async def noted(connection: Any, user_id: str, now: int, after: int, limit: int) -> list[int]:
        begun.append(after)
        return await real(connection, user_id, now, after, limit)

    monkeypatch.setattr(messages_tables, "empty_messages", noted)
    await run(data)
    assert begun == [0, 5, 11, 17, 19, 19]


async def test_a_message_that_is_stored_after_the_account_was_closed_is_emptied_too(
    data: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    await fill(data)
    real = messages_tables.is_present

    async def stored_meanwhile(connection: Any, user_id: str) -> bool:
        await connection.execute("INSERT INTO search_documents VALUES (21, ARRAY[1])")
        await connection.execute("""
            INSERT INTO messages (seq, conversation_id, sender, recipient, audience, msg_id, msg_type, is_chat, version,
                                  body, msg_time, location, stored_at)
                VALUES (21, 'u:alice:bob', 'alice', 'bob', 1, 'm', 'MTT-000', true, '', '[{"text": "x"}]', '', '', 21)
            """)
        return await real(connection, user_id)

    monkeypatch.setattr(messages_tables, "is_present", stored_meanwhile)
    assert (await run(data)).messages == 11
    assert await column(data.store, "SELECT body::text FROM messages WHERE seq = 21") == ["[]"]
    assert await column(data.store, "SELECT seq FROM search_documents WHERE seq = 21") == []


async def test_somebody_unknown_is_refused(data: Any) -> None:
    with steps() as shown, pytest.raises(BackupError, match="no user carol"):
        await plan("carol", data.logins, shown)


async def test_nothing_is_lost_to_a_person_who_is_still_counted_as_present(
    data: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(erasing, "GONE_WITHIN_S", 0.5)
    await fill(data)
    await data.store.execute("UPDATE mailboxes SET sessions = '{phone}' WHERE user_id = 'alice'")
    with pytest.raises(BackupError, match="still online"):
        await run(data)
    assert await column(data.store, "SELECT user_id FROM mailboxes ORDER BY 1") == ["alice", "bob"]


def test_the_command_knows_the_lock_and_the_keys_of_the_services() -> None:
    assert messages_tables.SEQ_LOCK == SEQ_LOCK
    assert thumbnail_keys_of("ab" * 16) == Blob("ab" * 16, "", 1, thumbnail_type="image/png").object_keys[1:]
