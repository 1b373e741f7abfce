"""The doctor at a gateway that speaks TLS: it trusts whom clients trust."""

import re
import ssl
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from tlim_admin.certificates import new_pair
from tlim_admin.doctor import objects, services
from tlim_admin.doctor.findings import State
from tlim_admin.settings import DoctorSettings


class Healthy(BaseHTTPRequestHandler):
    """Answers every question as the gateway answers /healthz, with the bytes that doctor has put into S3."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(objects._BODY)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name in the base class
        """Say nothing."""


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[str]:
    """A gateway whose certificate is of an authority of ours, in authority.pem."""
    authority, certificate = new_pair("im.example.com")
    (tmp_path / "authority.pem").write_text(authority)
    (tmp_path / "certificate.pem").write_text(certificate)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "certificate.pem")
    with HTTPServer(("127.0.0.1", 0), Healthy) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        answering = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        answering.start()
        yield f"https://localhost:{server.server_port}"
        server.shutdown()
        answering.join()


@pytest.fixture
def plain_gateway() -> Iterator[str]:
    """A gateway that speaks plain HTTP."""
    with HTTPServer(("127.0.0.1", 0), Healthy) as server:
        answering = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        answering.start()
        yield f"http://localhost:{server.server_port}"
        server.shutdown()
        answering.join()


async def test_a_gateway_with_a_certificate_of_our_own_authority_is_sound(gateway: str, tmp_path: Path) -> None:
    findings = await services.gateway(gateway, tmp_path / "authority.pem")
    assert {finding.state for finding in findings} == {State.OK}


async def test_a_gateway_with_a_certificate_of_an_authority_of_the_system_is_sound_beside_ours(
    gateway: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "of_xmpp.pem").write_text(new_pair("im.example.com")[0])
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "authority.pem"))
    findings = await services.gateway(gateway, tmp_path / "of_xmpp.pem")
    assert {finding.state for finding in findings} == {State.OK}


async def test_a_gateway_with_a_certificate_that_nobody_trusts_is_not(gateway: str) -> None:
    with pytest.raises(OSError, match="certificate verify failed"):
        await services.gateway(gateway, None)


async def test_a_gateway_without_tls_is_told_of_the_files_that_add_it(plain_gateway: str) -> None:
    (finding,) = [one for one in await services.gateway(plain_gateway, None) if one.state is State.WARNING]
    root = Path(__file__).parents[3]
    named = re.findall(r"[\w-]+/[\w./-]+", finding.advice)
    assert named
    assert all((root / one).exists() or (root / "deploy/k8s" / one).exists() for one in named)


async def test_an_address_of_files_with_a_certificate_of_our_own_authority_is_sound(
    gateway: str, tmp_path: Path
) -> None:
    settings = DoctorSettings.placeholder().model_copy(
        update={"s3_public_url": gateway, "xmpp_ca_file": tmp_path / "authority.pem"}
    )
    assert (await objects._public(settings, "key")).state is State.OK
