"""A log that tests write by SQL, as the stores leave it, and a reader's HTTP client."""

import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from itertools import count
from typing import Any

import asyncpg
import httpx
import jwt
import pytest
import pytest_asyncio
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from fastapi import FastAPI
from message_store.app import create_app
from message_store.mailbox.subscribers import live_responder, missed_responder, note_responder
from message_store.models import Audience
from message_store.settings import Settings
from pydantic import SecretStr
from tlim_protocol.events import StoredMessage
from tlim_protocol.identity import DELIVERY_SHARDS, conversation_of_users, delivery_shard
from tlim_protocol.lenient import write_json
from tlim_protocol.mailboxes import (
    LiveAnswer,
    LivePerson,
    LiveQuestion,
    MailboxNote,
    MailboxNoted,
    MailboxNotes,
    MissedAnswer,
    MissedQuestion,
)
from tlim_protocol.registry import REGISTRY, MsgType
from tlim_runtime.auth import TokenVerifier
from tlim_runtime.database import Database

KEY = Ed25519PrivateKey.generate()


def token(user: str) -> dict[str, str]:
    now = int(time.time())
    claims = {"sub": user, "iss": "tlim", "aud": "tlim", "iat": now, "exp": now + 60}
    return {"Authorization": f"Bearer {jwt.encode(claims, KEY, 'EdDSA', headers={'kid': 'test'})}"}


async def keys() -> dict[str, Any]:
    public = jwt.get_algorithm_by_name("EdDSA").to_jwk(KEY.public_key(), as_dict=True)
    return {"keys": [{**public, "kid": "test"}]}


@dataclass
class Http:
    """GET as somebody."""

    client: httpx.AsyncClient
    database: Database | None = None  # what it reads from, where it is the test's own

    async def get(self, me: str, path: str, **query: Any) -> httpx.Response:
        return await self.client.get(f"/v1/{path}", params=query or None, headers=token(me))

    async def read(self, me: str, path: str, **query: Any) -> dict[str, Any]:
        answer = await self.get(me, path, **query)
        assert answer.status_code == 200, answer.text
        page: dict[str, Any] = answer.json()
        return page


def _people(user_ids: tuple[str, ...]) -> list[dict[str, str]]:
    return [{"user_id": user_id} for user_id in user_ids]


class Log:
    """Writes what a store writes; every method returns the seq of the row that it made."""

    def __init__(self, connection: "asyncpg.Connection[asyncpg.Record]") -> None:
        self.connection = connection
        self._ids = count(1)

    async def direct(
        self, sender: str, to: str, msg_type: MsgType = MsgType.TEXT, *, body: Any = None, msg_id: str | None = None
    ) -> int:
        conversation_id = conversation_of_users(sender, to)
        if await self._begin(conversation_id):
            for user_id in {sender, to}:
                await self._enter(conversation_id, user_id, 0)
        return await self._append(
            conversation_id, sender, msg_type, Audience.RECIPIENT, recipient=to, body=body, msg_id=msg_id
        )

    async def group(self, session_id: str, *members: str, name: str = "a group") -> int:
        """A new session: the notice of it is the first that its members see."""
        await self._begin(session_id)
        await self.rename(session_id, name)
        return await self.change(session_id, MsgType.SESSION_ADDED, actor=members[0], added=members, name=name)

    async def rename(self, session_id: str, name: str) -> None:
        await self.connection.execute(
            "UPDATE conversations SET session_name = $2, session_version = 1 WHERE conversation_id = $1",
            session_id, name,
        )  # fmt: skip

    async def change(
        self,
        session_id: str,
        msg_type: MsgType = MsgType.SESSION_CHANGED,
        *,
        actor: str,
        added: tuple[str, ...] = (),
        removed: tuple[str, ...] = (),
        name: str = "a group",
        **told: Any,
    ) -> int:
        body = [
            {
                "session_id": session_id, "session_name": name, "actor": actor,
                "added": _people(added), "removed": _people(removed),
                "session_valid": int(msg_type is MsgType.SESSION_DELETED), **told,
            }
        ]  # fmt: skip
        seq = await self._append(session_id, "", msg_type, Audience.MEMBERS, body=body)
        for user_id in added:
            await self._enter(session_id, user_id, seq)
        await self.connection.execute(
            "UPDATE members SET left_seq = $3 WHERE conversation_id = $1 AND user_id = ANY($2) AND left_seq IS NULL",
            session_id, list(removed), seq,
        )  # fmt: skip
        if msg_type is MsgType.SESSION_DELETED:
            await self.connection.execute(
                "UPDATE conversations SET deleted_at = $2 WHERE conversation_id = $1", session_id, seq
            )
        return seq

    async def say(
        self, sender: str, session_id: str, msg_type: MsgType = MsgType.GROUP_TEXT, *,
        body: Any = None, msg_id: str | None = None,
    ) -> int:  # fmt: skip
        """Write into a group."""
        return await self._append(session_id, sender, msg_type, Audience.MEMBERS, body=body, msg_id=msg_id)

    async def tell(self, sender: str, session_id: str, *addressees: str) -> int:
        """A received receipt of a group: only the authors hear of it."""
        seq = await self._append(session_id, sender, MsgType.RECEIVED, Audience.ADDRESSEES)
        await self.connection.executemany(
            "INSERT INTO addressees (user_id, seq) VALUES ($1, $2)", [(user_id, seq) for user_id in addressees]
        )
        return seq

    async def receive(self, user_id: str, seq: int, *, read: bool = False) -> None:
        """Keep in the ledger that somebody received a message, or read it: one millisecond after its place."""
        await self.connection.execute(
            """INSERT INTO receipts (seq, user_id, delivered_at, read_at) VALUES ($1, $2, $3, $4)
               ON CONFLICT (seq, user_id) DO UPDATE SET read_at = coalesce(receipts.read_at, EXCLUDED.read_at)""",
            seq, user_id, seq + 1, seq + 2 if read else None,
        )  # fmt: skip
        if read:
            await self.connection.execute(
                """INSERT INTO read_cursors (user_id, conversation_id, read_seq)
                   SELECT $1, conversation_id, seq FROM messages WHERE seq = $2
                   ON CONFLICT (user_id, conversation_id)
                   DO UPDATE SET read_seq = greatest(read_cursors.read_seq, EXCLUDED.read_seq)""",
                user_id, seq,
            )  # fmt: skip

    async def recall(self, seq: int) -> None:
        await self.connection.execute("UPDATE messages SET recalled_at = 1, body = '[]' WHERE seq = $1", seq)

    async def attach(self, file_id: str, seq: int) -> None:
        await self.connection.execute("INSERT INTO message_files (file_id, seq) VALUES ($1, $2)", file_id, seq)

    async def _begin(self, conversation_id: str) -> bool:
        made = await self.connection.fetchval(
            "INSERT INTO conversations (conversation_id, created_at) VALUES ($1, 0) ON CONFLICT DO NOTHING RETURNING 1",
            conversation_id,
        )
        return made is not None

    async def _enter(self, conversation_id: str, user_id: str, seq: int) -> None:
        await self.connection.execute(
            "INSERT INTO members (conversation_id, user_id, joined_seq) VALUES ($1, $2, $3)",
            conversation_id, user_id, seq,
        )  # fmt: skip

    async def _append(
        self,
        conversation_id: str,
        sender: str,
        msg_type: MsgType,
        audience: Audience,
        *,
        recipient: str | None = None,
        body: Any = None,
        msg_id: str | None = None,
    ) -> int:
        msg_id = msg_id or f"m{next(self._ids)}"
        body = [dict(REGISTRY[msg_type].example)] if body is None else body
        seq: int = await self.connection.fetchval(
            """INSERT INTO messages (seq, conversation_id, sender, recipient, audience, msg_id, msg_type, is_chat,
                                     version, body, msg_time, location, stored_at)
               SELECT nextval('message_seq'), $1, $2, $3, $4, $5, $6, $7, '2.0.0', $8, '0', 'web',
                      currval('message_seq') RETURNING seq""",
            conversation_id, sender, recipient, audience, msg_id, msg_type.value, REGISTRY[msg_type].is_chat,
            write_json(body),
        )  # fmt: skip
        await self.connection.execute("INSERT INTO message_ids VALUES ($1, $2, $3)", msg_id, sender, seq)
        if REGISTRY[msg_type].is_chat:
            await self.connection.execute(
                "UPDATE conversations SET last_seq = $2 WHERE conversation_id = $1", conversation_id, seq
            )
        return seq


@pytest_asyncio.fixture
async def database_url(make_database: Callable[[str], str]) -> str:
    return make_database("message_store")


@pytest_asyncio.fixture
async def log(database_url: str) -> AsyncIterator[Log]:
    connection = await asyncpg.connect(database_url.replace("+asyncpg", ""))
    yield Log(connection)
    await connection.close()


@asynccontextmanager
async def open_http(app: FastAPI) -> AsyncIterator[Http]:
    """Go through the HTTP door of an application that knows the test's tokens."""
    app.state.tokens = TokenVerifier(keys, "tlim", "tlim")
    app.state.tokens.refuse(())
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://store") as client:
        yield Http(client)


@pytest.fixture(name="open_http")
def open_http_fixture() -> Callable[[FastAPI], AbstractAsyncContextManager[Http]]:
    return open_http


@pytest_asyncio.fixture
async def http(database_url: str) -> AsyncIterator[Http]:
    """The HTTP door alone: no store works, the log is the test's."""
    unused: dict[str, Any] = {"port": 0, "nats_url": "", "nats_user": "", "nats_password": SecretStr("")}
    app = create_app(Settings(jwks_url="", database_url=SecretStr(database_url), **unused))
    app.state.database = Database(database_url, 2)
    async with open_http(app) as opened:
        opened.database = app.state.database
        yield opened
    await app.state.database.close()


@dataclass
class Server:
    """What the responders need of NATS."""

    max_payload: int = 8 * 1024 * 1024


class Mailroom:
    """The responders of mailboxes, without a broker between."""

    def __init__(self, database: Database) -> None:
        server: Any = Server()
        self.database = database
        self.server = server
        self.terms = [0] * DELIVERY_SHARDS
        self.note_bytes = note_responder(database)
        self._live = live_responder(database, server)
        self.answer_missed = missed_responder(database, server)

    async def note(self, *notes: MailboxNote, **settled: int) -> None:
        """Write notes about people of any shards."""
        for shard in range(DELIVERY_SHARDS):
            of_it = [note for note in notes if delivery_shard(note.user_id) == shard]
            if of_it or settled:
                assert not (await self.note_in(shard, *of_it, **settled)).is_outdated

    async def note_in(self, shard: int, *notes: MailboxNote, term: int | None = None, **settled: int) -> MailboxNoted:
        term = self.terms[shard] if term is None else term
        request = MailboxNotes(shard=shard, term=term, notes=list(notes), **settled)
        return MailboxNoted.from_bytes(await self.note_bytes(request.to_bytes()))

    async def live(self, shard: int, **question: Any) -> LiveAnswer:
        return LiveAnswer.from_bytes(await self._live(LiveQuestion(shard=shard, **question).to_bytes()))

    async def present(self, limit: int = 1_000) -> list[LivePerson]:
        """Everybody who is present, page by page; a new term of every shard begins."""
        people: list[LivePerson] = []
        for shard in range(DELIVERY_SHARDS):
            answer = await self.live(shard, limit=limit)
            self.terms[shard] = answer.term
            people += answer.people
            while answer.more:
                answer = await self.live(shard, term=answer.term, after_user=people[-1].user_id, limit=limit)
                people += answer.people
        return sorted(people, key=lambda person: person.user_id)

    async def page(self, user_id: str, **question: Any) -> MissedAnswer:
        question_bytes = MissedQuestion(user_id=user_id, **question).to_bytes()
        return MissedAnswer.from_bytes(await self.answer_missed(question_bytes))

    async def missed(self, user_id: str, limit: int = 100) -> tuple[list[StoredMessage], MissedAnswer]:
        """Everything that somebody has missed, page by page; and the last answer, with `is_cut` of the first."""
        page = first = await self.page(user_id, limit=limit)
        events = list(page.events)
        while page.more:
            assert (page.up_to, page.next > 0) == (page.next, True)
            page = await self.page(user_id, after=page.next, limit=limit, receipts=first.receipts)
            events += page.events
        return events, page.model_copy(update={"is_cut": first.is_cut, "receipts": first.receipts})

    async def seqs(self, user_id: str, limit: int = 100) -> list[int]:
        events, _ = await self.missed(user_id, limit)
        assert all(event.recipients == [user_id] and event.reply_to is None for event in events)
        return [event.seq for event in events]


@pytest_asyncio.fixture
async def mailroom(database_url: str) -> AsyncIterator[Mailroom]:
    database = Database(database_url, 4)
    yield Mailroom(database)
    await database.close()
