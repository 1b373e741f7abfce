"""file-api as its clients and neighbours meet it: over real HTTP, with real PostgreSQL, NATS and S3."""

import asyncio
import base64
import os
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import asyncpg
import boto3
import httpx
import pytest
import pytest_asyncio
import uvicorn
from fastapi import FastAPI
from file_api.app import create_app
from file_api.files import object_key
from file_api.keep import storage
from file_api.keep.botodata import lean_loader
from file_api.settings import Settings
from pydantic import SecretStr
from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_delay, wait_fixed
from tlim_devstack.plain_http import NO_TLS
from tlim_devstack.processes import dies_with_parent
from tlim_devstack.pytest_plugin import S3Bucket
from tlim_devstack.servers import PUBLISHED_KEYS, NatsServer
from tlim_devstack.waiting import free_port
from tlim_protocol.events import FileEvent, FileQuestion, FileVerdict, UsersDeactivated
from tlim_protocol.streams import StreamName
from tlim_protocol.subjects import Rpc
from tlim_runtime.auth import CurrentUser
from tlim_runtime.broker import Broker
from tlim_runtime.health import Health


async def eventually(check: Callable[[], Awaitable[None]], within_s: float = 30) -> None:
    """Repeat `check` until it raises no AssertionError."""
    async for attempt in AsyncRetrying(
        stop=stop_after_delay(within_s),
        wait=wait_fixed(0.05),
        retry=retry_if_exception_type(AssertionError),
        reraise=True,
    ):
        with attempt:
            await check()


_DATA_OF_S3 = lean_loader()


@pytest.fixture(autouse=True)
def data_of_s3_is_loaded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Read botocore's description of S3 only once: that takes longer than the rest of a start."""
    monkeypatch.setattr(storage, "lean_loader", lambda: _DATA_OF_S3)


@dataclass
class MessageStore:
    """message-store's side: which user may see which file in a message, and which files have only recalled messages."""

    sees: set[tuple[str, str]] = field(default_factory=set)
    recalled: set[str] = field(default_factory=set)
    questions: list[FileQuestion] = field(default_factory=list)

    async def answer(self, data: bytes) -> bytes:
        question = FileQuestion.from_bytes(data)
        self.questions.append(question)
        allowed = (question.file_id, question.user_id) in self.sees
        return FileVerdict(allowed=allowed, recalled=question.file_id in self.recalled).to_bytes()


class Bucket:
    """What is really in S3."""

    def __init__(self, bucket: S3Bucket) -> None:
        self._name = bucket.bucket
        self._s3 = boto3.client(
            "s3", endpoint_url=bucket.endpoint, aws_access_key_id=bucket.access_key,
            aws_secret_access_key=bucket.secret_key, region_name=bucket.region,
        )  # fmt: skip

    def objects(self) -> list[str]:
        return [item["Key"] for item in self._s3.list_objects_v2(Bucket=self._name).get("Contents", [])]

    def unfinished(self) -> list[str]:
        return [item["Key"] for item in self._s3.list_multipart_uploads(Bucket=self._name).get("Uploads", [])]

    def join(self, file_id: str) -> None:
        """Do what completing a direct upload does first, then nothing."""
        key = object_key(file_id)
        for upload in self._s3.list_multipart_uploads(Bucket=self._name, Prefix=key)["Uploads"]:
            s3_id = upload["UploadId"]
            found = self._s3.list_parts(Bucket=self._name, Key=key, UploadId=s3_id)["Parts"]
            parts: Any = [{"PartNumber": part["PartNumber"], "ETag": part["ETag"]} for part in found]
            self._s3.complete_multipart_upload(
                Bucket=self._name, Key=key, UploadId=s3_id, MultipartUpload={"Parts": parts}
            )

    def put(self, key: str) -> None:
        self._s3.put_object(Bucket=self._name, Key=key, Body=b"left behind")

    def overwrite(self, key: str, data: bytes) -> None:
        self._s3.put_object(Bucket=self._name, Key=key, Body=data)

    def begin(self, key: str) -> None:
        upload_id = self._s3.create_multipart_upload(Bucket=self._name, Key=key)["UploadId"]
        self._s3.upload_part(Bucket=self._name, Key=key, UploadId=upload_id, PartNumber=1, Body=b"left behind")

    def close(self) -> None:
        self._s3.close()


@dataclass
class World:
    """One file-api's servers, and what a test does with them."""

    nats: NatsServer
    database_url: str
    s3: S3Bucket
    bucket: Bucket
    tests: Broker
    store: MessageStore
    store_broker: Broker
    app: FastAPI = field(default_factory=FastAPI)
    port: int = 0

    def settings(self, **changes: Any) -> Settings:
        values: dict[str, Any] = {
            "port": 0, "nats_url": self.nats.url, "nats_user": "file-api",
            "nats_password": SecretStr(self.nats.passwords["file-api"]), "jwks_url": PUBLISHED_KEYS,
            "database_url": SecretStr(self.database_url), "s3_endpoint_url": self.s3.endpoint,
            "s3_public_url": self.s3.endpoint.replace("127.0.0.1", "localhost"),
            "s3_bucket": self.s3.bucket, "s3_region": self.s3.region, "s3_access_key": SecretStr(self.s3.access_key),
            "s3_secret_key": SecretStr(self.s3.secret_key), "trust_request_user": True,
        }  # fmt: skip
        return Settings(**{**values, **changes})

    @asynccontextmanager
    async def running(self, app: FastAPI) -> AsyncIterator[None]:
        """The application behind a real HTTP server, on a port of its own."""
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            self.port = listener.getsockname()[1]
            server = uvicorn.Server(uvicorn.Config(app, log_config=None, lifespan="on", timeout_graceful_shutdown=5))
            serving = asyncio.create_task(server.serve(sockets=[listener]))
            while not server.started:
                assert not serving.done(), "the service did not start"
                await asyncio.sleep(0.01)
            try:
                yield
            finally:
                server.should_exit = True
                await serving

    def environment(self, **changes: Any) -> dict[str, str]:
        """What a process is told that is to have these settings."""
        settings = self.settings(**changes)
        told = {name: getattr(settings, name) for name in settings.model_fields_set}
        plain = {name: one.get_secret_value() if isinstance(one, SecretStr) else one for name, one in told.items()}
        return {**os.environ, **{f"TLIM_{name.upper()}": str(value) for name, value in plain.items()}}

    async def start_process(self, **changes: Any) -> asyncio.subprocess.Process:
        """The service as it runs in production, ready, on a port of its own."""
        self.port = free_port()
        command = dies_with_parent([sys.executable, "-m", "file_api"])  # also if it is not ready in time
        service = await asyncio.create_subprocess_exec(*command, env=self.environment(port=self.port, **changes))

        async def ready() -> None:
            assert service.returncode is None
            try:
                async with self.client("") as client:
                    assert (await client.get("/readyz", headers={"Authorization": ""})).status_code == 200
            except httpx.ConnectError as error:
                raise AssertionError from error

        await eventually(ready)
        return service

    def client(self, user_id: str) -> httpx.AsyncClient:
        """An HTTP client that is this user for both doors."""
        return httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{self.port}",
            headers={"Authorization": f"Bearer {user_id}"},
            timeout=60,
            verify=NO_TLS,
        )

    async def rows(self, statement: str, *arguments: Any) -> list[asyncpg.Record]:
        connection = await asyncpg.connect(self.database_url.replace("+asyncpg", ""))
        try:
            return await connection.fetch(statement, *arguments)
        finally:
            await connection.close()

    async def nothing_left(self) -> None:
        """Wait until nothing is left: the sweeper may still be removing an object that is gone for everybody."""
        await eventually(self._nothing_left)

    async def _nothing_left(self) -> None:
        for table in ("files", "blobs", "uploads", "discarded"):
            assert await self.rows(f"SELECT * FROM {table}") == []  # noqa: S608 - our own names
        assert (self.bucket.objects(), self.bucket.unfinished()) == ([], [])

    async def file_events(self) -> list[FileEvent]:
        """All that file-api has announced."""
        return [FileEvent.from_bytes(data) for data in await self._payloads(StreamName.FILES)]

    async def _payloads(self, stream: StreamName) -> list[bytes]:
        state = await self.tests.stream_state(stream)
        found = [await self.tests.api(f"STREAM.MSG.GET.{stream}", seq=seq) for seq in range(1, state.last_seq + 1)]
        return [base64.b64decode(one["message"].get("data", "")) for one in found if "message" in one]


async def nobody_is_deactivated(_: bytes) -> bytes:
    """Session-api's answer about deactivated users."""
    return UsersDeactivated(users=[]).to_bytes()


class NamesAreTokens:
    """Stands in for the token check, which tlim_runtime tests: the token is the user id."""

    async def verify(self, token: str) -> CurrentUser:
        return CurrentUser(token)

    knows_whom_to_refuse = True

    def refuse(self, user_ids: Iterable[str]) -> None:
        """Refuse nobody: the tests deactivate nobody."""

    def looked_after(self, health: Health) -> None:
        """Add nothing: every name can be checked."""


@pytest.fixture
def bucket(s3_bucket: S3Bucket) -> Iterator[Bucket]:
    opened = Bucket(s3_bucket)
    yield opened
    opened.close()


@pytest_asyncio.fixture
async def servers(
    clean_jetstream: NatsServer,
    make_database: Callable[[str], str],
    connect_broker: Callable[[str], Awaitable[Broker]],
    s3_bucket: S3Bucket,
    bucket: Bucket,
) -> World:
    """The servers and the neighbours, without file-api itself."""
    store, broker = MessageStore(), await connect_broker("message-store")
    await broker.respond(Rpc.MESSAGE_GRANTS, store.answer, "message-store")
    await broker.flush()
    directory = await connect_broker("session-api")
    await directory.respond(Rpc.USER_DEACTIVATED, nobody_is_deactivated, "session-api")
    await directory.flush()
    tests = await connect_broker("tests")
    return World(clean_jetstream, make_database("file_api"), s3_bucket, bucket, tests, store, broker)


@pytest.fixture
def changed_settings() -> dict[str, Any]:
    """Override it in a module or by parametrizing to run the service with other settings."""
    return {}


@pytest_asyncio.fixture
async def world(servers: World, changed_settings: dict[str, Any]) -> AsyncIterator[World]:
    async with AsyncExitStack() as stack:
        servers.app = create_app(servers.settings(**changed_settings))
        servers.app.state.tokens = NamesAreTokens()
        await stack.enter_async_context(servers.running(servers.app))
        yield servers


@pytest.fixture(name="eventually")
def eventually_fixture() -> Callable[..., Awaitable[None]]:
    return eventually
