import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from tlim_devstack import nats
from tlim_devstack.servers import NatsServer
from tlim_devstack.streams import inbox_of, newest
from tlim_devstack.waiting import accepts_connections, free_port, wait_until
from tlim_protocol.registry import MsgType
from tlim_protocol.streams import CONSUMERS, STREAMS, StreamName, WhenFull
from tlim_protocol.subjects import ALL_DEAD, subject_in
from tlim_runtime.broker import Broker

STORE_INBOX = inbox_of("u:alice:bob")

APP = """
import gc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

from fastapi import APIRouter, FastAPI
from pydantic import Field
from tlim_runtime.app import build_app
from tlim_runtime.broker import Broker

from sample.settings import Settings

router = APIRouter()


@router.get("/hello/{name}")
async def hello(name: str) -> Annotated[str, Field(examples=["world"])]:
    return name


@router.get("/collects")
async def collects() -> Annotated[bool, Field(examples=[True])]:
    return gc.isenabled()


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    settings = app.state.settings
    password = settings.nats_password.get_secret_value()
    broker = await Broker.connect(settings.nats_url, settings.nats_user, password, settings.service)
    app.state.health.add("nats", broker.ping)
    yield
    await broker.close()


def create_app(settings: Settings) -> FastAPI:
    return build_app("sample", "1.0", settings, lifespan, [router])
"""
FILES = {
    "__init__.py": "",
    "settings.py": (
        "from tlim_runtime.settings import ServiceSettings\n\n\n"
        "class Settings(ServiceSettings):\n    service = 'sample'\n"
    ),
    "app.py": APP,
    "__main__.py": "from tlim_runtime.serving import serve\n\nserve('sample')\n",
}

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A directory with the package of a small service."""
    package = tmp_path / "sample"
    package.mkdir()
    (tmp_path / "services" / "sample").mkdir(parents=True)
    for name, text in FILES.items():
        (package / name).write_text(text)
    return tmp_path


@pytest.fixture
def environment(home: Path, nats_server: NatsServer) -> dict[str, str]:
    return {
        **os.environ,
        "PYTHONPATH": str(home),
        "TLIM_PORT": str(free_port()),
        "TLIM_NATS_URL": nats_server.url,
        "TLIM_NATS_USER": nats.TEST_USER,
        "TLIM_NATS_PASSWORD": nats_server.passwords[nats.TEST_USER],
        "TLIM_JWKS_URL": "http://127.0.0.1/jwks.json",
    }


@pytest.fixture
def service(home: Path, environment: dict[str, str]) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "sample"]
    process = subprocess.Popen(command, cwd=home, env=environment, stdout=subprocess.PIPE, text=True)  # noqa: S603
    port = int(environment["TLIM_PORT"])
    wait_until(lambda: accepts_connections(port) or process.poll() is not None, "the service")
    yield process
    process.kill()
    process.communicate()


def test_a_service_answers_idles_small_and_ends_cleanly_on_sigterm(
    service: subprocess.Popen[str], environment: dict[str, str]
) -> None:
    base = f"http://127.0.0.1:{environment['TLIM_PORT']}"
    with httpx.Client(base_url=base, timeout=20) as http:
        assert http.get("/hello/world").json() == "world"
        assert http.get("/readyz").json() == {"ready": True, "checks": {"nats": "ok"}}
        assert http.get("/collects").json() is True
        metrics = http.get("/metrics").text
    resident = next(line for line in metrics.splitlines() if line.startswith("process_resident_memory_bytes"))
    assert float(resident.split()[1]) < 100 * 1024**2
    service.send_signal(signal.SIGTERM)
    output, _ = service.communicate(timeout=20)
    assert service.returncode == 0
    events = [json.loads(line)["event"] for line in output.splitlines()]
    assert events.index("ready") < events.index("stopping")


@pytest.mark.usefixtures("service")
def test_what_is_not_http_is_answered_with_a_problem_document(environment: dict[str, str]) -> None:
    with socket.create_connection(("127.0.0.1", int(environment["TLIM_PORT"]))) as connection:
        connection.sendall("GET /hello/world?name=张三 HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        with connection.makefile("rb") as stream:
            head, _, body = stream.read().partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 ")
    assert b"content-type: application/problem+json" in head
    assert json.loads(body)["status"] == 400


def test_a_service_that_waits_for_nats_can_be_stopped(home: Path, environment: dict[str, str]) -> None:
    environment["TLIM_NATS_URL"] = f"nats://127.0.0.1:{free_port()}"
    command = [sys.executable, "-m", "sample"]
    process = subprocess.Popen(command, cwd=home, env=environment, stdout=subprocess.PIPE, text=True)  # noqa: S603
    assert process.stdout is not None
    for line in process.stdout:
        if json.loads(line).get("logger") == "tlim_runtime.broker":  # it has noticed that nobody is there
            break
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=20)
    assert process.returncode == 0


def run(home: Path, environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", *arguments]
    return subprocess.run(command, cwd=home, env=environment, capture_output=True, text=True, check=False)  # noqa: S603


def test_a_missing_setting_or_a_taken_port_ends_the_start(
    home: Path, environment: dict[str, str], service: subprocess.Popen[str]
) -> None:
    taken = run(home, environment, "sample")
    assert taken.returncode != 0
    assert "address already in use" in taken.stdout
    assert service.poll() is None
    del environment["TLIM_JWKS_URL"]
    missing = run(home, environment, "sample")
    assert (missing.returncode, missing.stderr.split(":")[0]) == (1, "TLIM_JWKS_URL")


def test_openapi_is_written_without_environment_and_drift_is_reported(home: Path) -> None:
    bare = {"PYTHONPATH": str(home)}
    target = home / "services" / "sample" / "openapi.json"
    assert run(home, bare, "tlim_runtime.openapi", "sample", "--check").returncode == 1
    assert run(home, bare, "tlim_runtime.openapi", "sample").returncode == 0
    assert "/hello/{name}" in json.loads(target.read_text())["paths"]
    assert run(home, bare, "tlim_runtime.openapi", "sample", "--check").returncode == 0
    target.write_text("{}")
    drift = run(home, bare, "tlim_runtime.openapi", "sample", "--check")
    assert drift.returncode == 1
    assert "openapi.json" in drift.stderr


async def test_provisioning_is_idempotent_and_keeps_what_is_stored(
    home: Path, environment: dict[str, str], nats_server: NatsServer, broker: Broker
) -> None:
    environment["TLIM_NATS_USER"] = "provision"
    environment["TLIM_NATS_PASSWORD"] = nats_server.passwords["provision"]
    subject = STREAMS[0].subjects[0].replace("*", "0")
    await broker.publish(subject, b"kept", "id-1")
    done = run(home, environment, "tlim_runtime.provision")
    assert done.returncode == 0, done.stderr
    assert await newest(broker, StreamName.IN) == b"kept"
    for spec in STREAMS:
        config = (await broker.api(f"STREAM.INFO.{spec.name}"))["config"]
        assert config["discard"] == ("new" if spec.when_full is WhenFull.REFUSE_NEW else "old")
        assert config["subjects"] == list(spec.subjects)
    for consumer in CONSUMERS:
        config = (await broker.api(f"CONSUMER.INFO.{consumer.stream}.{consumer.durable}"))["config"]
        assert config["max_ack_pending"] == consumer.max_ack_pending


async def test_provisioning_moves_a_deployment_of_one_stream_for_all_events_on(
    home: Path, environment: dict[str, str], nats_server: NatsServer, broker: Broker
) -> None:
    environment["TLIM_NATS_USER"] = "provision"
    environment["TLIM_NATS_PASSWORD"] = nats_server.passwords["provision"]
    await broker.api(f"STREAM.DELETE.{StreamName.FILES}")
    for name, subjects in ((StreamName.IN, ["tlim.in.>"]), (StreamName.DEAD, [ALL_DEAD])):
        config = (await broker.api(f"STREAM.INFO.{name}"))["config"]
        answer = await broker.api(f"STREAM.UPDATE.{name}", **{**config, "subjects": subjects, "discard": "new"})
        assert "error" not in answer
    file_event = subject_in(MsgType.FILE_UPLOADED, "f1")
    await broker.publish(file_event, b"a file", "id-1")
    await broker.publish(subject_in(MsgType.TEXT, "u:alice:bob"), b"waiting", "id-2")
    for _ in range(2):
        done = run(home, environment, "tlim_runtime.provision")
        assert done.returncode == 0, done.stderr
    assert await newest(broker, StreamName.IN) == b"waiting"
    assert (await broker.api(f"CONSUMER.INFO.{StreamName.IN}.{STORE_INBOX.durable}"))["num_pending"] == 1
    assert (await broker.api(f"STREAM.INFO.{StreamName.DEAD}"))["config"]["discard"] == "old"
    await broker.publish(file_event, b"another file", "id-3")
    assert await newest(broker, StreamName.FILES) == b"another file"


def test_provisioning_without_a_server_fails_with_one_line(home: Path, environment: dict[str, str]) -> None:
    environment["TLIM_NATS_URL"] = f"nats://127.0.0.1:{free_port()}"
    failed = run(home, environment, "tlim_runtime.provision")
    assert failed.returncode == 1
    assert len(failed.stderr.splitlines()) == 1
