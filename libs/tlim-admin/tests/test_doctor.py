"""The rules of the doctor: clocks, certificates, and locks behind a pooler."""

import os
import socket
import ssl
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
from tlim_admin import secret_files
from tlim_admin.backup import dumps
from tlim_admin.backup.commands import logins
from tlim_admin.backup.tables import OwnerLogin
from tlim_admin.certificates import new_pair
from tlim_admin.doctor import postgres
from tlim_admin.doctor.certificates import SOON_DAYS, https, judge
from tlim_admin.doctor.clocks import judge_clock, judge_date
from tlim_admin.doctor.findings import LOOKS, Finding, NamedCheck, State, fine, run, run_all, wrong
from tlim_admin.doctor.objects import reached
from tlim_admin.doctor.postgres import locks_last
from tlim_admin.doctor.services import not_ready
from tlim_admin.doctor.streams import judge_room, judge_stream
from tlim_admin.http import Answer
from tlim_admin.settings import PostgresSettings
from tlim_protocol.streams import STREAMS, StreamSpec, WhenFull
from tlim_runtime.provision import stream_config

NOW = 1_800_000_000.0  # 2027-01-15 08:00:00 UTC


def test_a_clock_is_wrong_beyond_two_seconds_and_not_because_an_answer_took_long() -> None:
    assert judge_clock("S3", NOW, NOW, NOW + 9).state is State.OK
    assert judge_clock("S3", NOW + 8.9, NOW, NOW + 9).state is State.OK
    assert "10 s ahead of ours" in judge_clock("S3", NOW + 10, NOW, NOW).seen
    assert "10 s behind ours" in judge_clock("S3", NOW - 10, NOW, NOW).seen
    assert judge_clock("S3", NOW - 2.9, NOW, NOW, exact_s=1.0).state is State.OK


def test_a_clock_that_nothing_tells_of_is_not_taken_for_right() -> None:
    assert judge_date("S3", "Fri, 15 Jan 2027 08:00:00 GMT", NOW, NOW + 9).state is State.OK
    assert judge_date("S3", "Fri, 15 Jan 2027 07:59:50 GMT", NOW, NOW).seen == "9 s behind ours"
    finding = judge_date("S3", None, NOW, NOW)
    assert (finding.state, finding.seen) == (State.WARNING, "not compared, as its answer has no Date")


def test_a_certificate_that_ends_soon_is_named_before_it_ends() -> None:
    long, soon = {"notAfter": "Jan 15 08:00:00 2028 GMT"}, {"notAfter": "Jan 25 08:00:00 2027 GMT"}
    assert judge("XMPP", long, NOW, "TLSv1.3").seen == "good for 365 days, TLSv1.3"
    assert judge("XMPP", soon, NOW, "TLSv1.3").state is State.WARNING
    assert SOON_DAYS > 10


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[str]:
    """Serve handshakes with a certificate whose authority is in the file `gateway-ca.pem`; give the URL."""
    authority, certificate = new_pair("chat.example.org")
    (tmp_path / "gateway-ca.pem").write_text(authority)
    (tmp_path / "gateway.pem").write_text(certificate)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(tmp_path / "gateway.pem")

    def serve(door: socket.socket) -> None:
        with door.accept()[0] as plain, suppress(OSError), context.wrap_socket(plain, server_side=True) as secure:
            secure.recv(1)

    with socket.create_server(("127.0.0.1", 0)) as door:
        thread = threading.Thread(target=serve, args=(door,))
        thread.start()
        yield f"https://localhost:{door.getsockname()[1]}"
        thread.join()


@pytest.mark.parametrize(
    ("authorities", "state"),
    [
        (("gateway-ca.pem", "other-ca.pem"), State.OK),
        (("other-ca.pem", "gateway-ca.pem"), State.OK),
        (("other-ca.pem", "other-ca.pem"), State.WRONG),
    ],
)
async def test_a_gateway_is_trusted_for_an_authority_of_the_system_or_for_that_of_xmpp(
    gateway: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, authorities: tuple[str, str], state: State
) -> None:
    of_the_system, of_xmpp = authorities
    (tmp_path / "other-ca.pem").write_text(new_pair("chat.example.org")[0])
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / of_the_system))

    (finding,) = await https(gateway, tmp_path / of_xmpp)

    assert finding.state is state


def test_in_a_container_an_address_of_loopback_is_asked_where_it_leads_to_and_any_other_one_as_it_is() -> None:
    signed = "http://127.0.0.1:9091/tlim-files/files/1?X-Amz-Signature=1"
    via = "http://gateway:9091/tlim-files/files/1?X-Amz-Signature=1"
    assert reached(signed, "gateway:9091") == (via, {"Host": "127.0.0.1:9091"})
    assert reached(signed, None) == (signed, {})
    assert reached("https://s3.example.com/1", "gateway:9091") == ("https://s3.example.com/1", {})


def test_locks_that_a_pooler_breaks_are_wrong() -> None:
    assert locks_last("session_api", is_held=True, others_are_refused=True).state is State.OK
    assert locks_last("session_api", is_held=True, others_are_refused=False).state is State.WRONG
    assert "pooling" in locks_last("session_api", is_held=False, others_are_refused=True).advice


class Pooled:
    """A connection to a database; a pooler hands on those of message_store, so that a lock keeps nobody away."""

    def __init__(self, service: str) -> None:
        self._service = service

    async def execute(self, *_: object) -> None: ...

    async def fetch(self, *_: object) -> list[object]:
        return []

    async def fetchval(self, statement: str, *_: object) -> object:
        if "pg_try_advisory_lock" in statement:
            return self._service == "message_store"
        return 500 if "current_setting" in statement or "clock" in statement else "pg_locks" in statement

    def get_server_version(self) -> SimpleNamespace:
        return SimpleNamespace(major=18)


async def test_locks_are_tried_in_each_database_whose_service_needs_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    @asynccontextmanager
    async def pooled(login: OwnerLogin) -> AsyncIterator[Pooled]:
        yield Pooled(login.service)

    async def probe(_: OwnerLogin) -> None: ...

    monkeypatch.setattr(postgres, "connected", pooled)
    monkeypatch.setattr(dumps, "probe", probe)
    secret_files.write_missing(tmp_path, "chat.example.org", os.getuid())
    settings = PostgresSettings(postgres_url="postgresql://pooler:6432")

    findings = await postgres.look(settings, tmp_path, logins(settings, tmp_path))

    states = {one.name: one.state for one in findings if "locks" in one.name}
    assert states == {"PostgreSQL locks session_api": State.OK, "PostgreSQL locks message_store": State.WRONG}


def test_a_stream_with_fewer_copies_than_this_deployment_keeps_is_wrong() -> None:
    three = stream_config(STREAMS[0], replicas=3)
    assert judge_stream(STREAMS[0], three, replicas=3) == []
    (finding,) = judge_stream(STREAMS[0], stream_config(STREAMS[0], replicas=1), replicas=3)
    assert (finding.state, finding.seen) == (State.WRONG, "is on 1 nodes, and TLIM_NATS_REPLICAS says 3")
    three.max_bytes = 1
    assert "other settings" in judge_stream(STREAMS[0], three, replicas=3)[0].seen


@pytest.mark.parametrize("spec", STREAMS, ids=lambda spec: spec.name)
def test_a_stream_that_will_soon_refuse_what_is_new_is_named_and_one_that_drops_what_is_oldest_is_not(
    spec: StreamSpec,
) -> None:
    refuses = spec.when_full is WhenFull.REFUSE_NEW
    assert judge_room(spec, spec.max_bytes * 8 // 10) == []
    found = judge_room(spec, spec.max_bytes * 9 // 10)
    assert [(one.state, one.seen) for one in found] == [(State.WARNING, "is 90% full")] * refuses


async def test_a_check_that_fails_is_a_finding_and_does_not_end_the_others() -> None:
    async def fails() -> list[object]:
        raise OSError("connection refused\nand more")

    assert await run("NATS", fails, "start it") == [wrong("NATS", "connection refused", "start it")]  # type: ignore[arg-type]


async def test_what_is_wrong_once_is_looked_at_again_and_what_stays_wrong_is_told() -> None:
    late, gone = [wrong("S3", "no answer within 2 s", "wait")], [wrong("NATS", "connection refused", "start it")]
    seen: dict[str, list[list[Finding]]] = {"S3": [late, [fine("S3", "answers")]], "NATS": [gone] * LOOKS}

    def check(name: str) -> NamedCheck:
        async def look() -> list[Finding]:
            return seen[name].pop(0)

        return NamedCheck(name, look, "")

    findings = await run_all([check("S3"), check("NATS")], pause_s=0)

    assert findings == [fine("S3", "answers"), *gone]
    assert seen == {"S3": [], "NATS": []}


def test_what_is_not_ready_is_told_in_its_own_words() -> None:
    answer = cast("Answer", SimpleNamespace(status=503, body=b'{"ready": false, "checks": {"a": "ok", "b": "slow"}}'))
    assert not_ready(answer) == "b: slow"
    answer.body = b"<html>"
    assert not_ready(answer) == "answers 503"
