"""The gateway outside of development: HTTPS only, TLS 1.2 or later, and a renewed certificate is served."""

import os
import socket
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography.x509 import load_der_x509_certificate, load_pem_x509_certificate
from tlim_devstack.certificates import ensure_certificates
from tlim_devstack.layout import DEPLOY, program
from tlim_devstack.processes import ServerProcess, dies_with_parent
from tlim_devstack.waiting import accepts_connections, free_port, wait_until

GET = b"GET /nothing HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


@dataclass
class Gateway:
    """A running Caddy with deploy/caddy/Caddyfile; one file holds its certificate and the key."""

    ports: tuple[int, int]
    certificate: Path
    process: ServerProcess

    def get(self, port: int, newest: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3) -> tuple[int, str]:
        """Return the serial number of the certificate, and the answer to a request."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        context.set_ciphers("ALL:@SECLEVEL=0")
        context.minimum_version, context.maximum_version = ssl.TLSVersion.MINIMUM_SUPPORTED, newest
        with (
            socket.create_connection(("127.0.0.1", port), timeout=10) as plain,
            context.wrap_socket(plain, server_hostname="localhost") as stream,
        ):
            serial = load_der_x509_certificate(stream.getpeercert(binary_form=True) or b"").serial_number
            stream.sendall(GET)
            return serial, stream.recv(65_536).decode()


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    home = tmp_path_factory.mktemp("gateway")
    _, certificate = ensure_certificates(home, "localhost")
    ports = free_port(), free_port()
    environment = {
        "TLIM_GATEWAY_SCHEME": "https",
        "TLIM_CERTIFICATE_FILE": str(certificate),
        "TLIM_CERTIFICATE_KEY_FILE": str(certificate),
        "TLIM_PORT_GATEWAY": str(ports[0]),
        "TLIM_PORT_FILES": str(ports[1]),
        "PATH": f"{program('caddy').parent}:{os.environ['PATH']}",
        "XDG_DATA_HOME": str(home),
        "XDG_CONFIG_HOME": str(home),
    }
    command = ["sh", str(DEPLOY / "caddy" / "run"), str(DEPLOY / "caddy" / "Caddyfile")]
    process = ServerProcess("gateway", dies_with_parent(command), home / "log", environment)
    try:
        process.wait_ready(lambda: all(map(accepts_connections, ports)))
        yield Gateway(ports, certificate, process)
    finally:
        process.stop()


def test_both_doors_speak_https_and_say_that_they_always_will(gateway: Gateway) -> None:
    for port in gateway.ports:
        _, answer = gateway.get(port)
        assert answer.startswith("HTTP/1.1 404 ")
        assert "Strict-Transport-Security: max-age=31536000" in answer


def test_a_probe_that_names_no_server_is_answered(gateway: Gateway) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with (
        socket.create_connection(("127.0.0.1", gateway.ports[0]), timeout=10) as plain,
        context.wrap_socket(plain) as stream,
    ):
        stream.sendall(b"GET /healthz HTTP/1.1\r\nHost: 10.0.0.1:9090\r\n\r\n")  # as Kubernetes asks a pod
        assert stream.recv(65_536).startswith(b"HTTP/1.1 200 ")


def test_a_request_without_tls_is_refused(gateway: Gateway) -> None:
    for port in gateway.ports:
        with socket.create_connection(("127.0.0.1", port), timeout=10) as plain:
            plain.sendall(GET)
            assert plain.recv(65_536).startswith(b"HTTP/1.0 400 ")


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
def test_tls_before_1_2_is_refused(gateway: Gateway) -> None:
    for port in gateway.ports:
        with pytest.raises(OSError, match=r"(?i)protocol|alert|eof|reset"):
            gateway.get(port, ssl.TLSVersion.TLSv1_1)


def test_a_renewed_certificate_is_served_without_a_restart_and_a_broken_one_is_not(
    gateway: Gateway, tmp_path: Path
) -> None:
    before = load_pem_x509_certificate(gateway.certificate.read_bytes()).serial_number
    assert [gateway.get(port)[0] for port in gateway.ports] == [before] * 2
    _, renewed = ensure_certificates(tmp_path, "localhost")
    pem, told_before = renewed.read_text(), len(gateway.process.log.read_text())
    gateway.certificate.write_text(pem[: pem.index("-----BEGIN PRIVATE KEY")])
    wait_until(
        lambda: '"level":"error"' in gateway.process.log.read_text()[told_before:],
        "a look at the broken file",
        timeout=20,
    )
    assert [gateway.get(port)[0] for port in gateway.ports] == [before] * 2
    gateway.certificate.write_text(pem)
    after = load_pem_x509_certificate(pem.encode()).serial_number
    wait_until(lambda: [gateway.get(port)[0] for port in gateway.ports] == [after] * 2, "the new one", timeout=20)
    assert gateway.process.process.poll() is None
