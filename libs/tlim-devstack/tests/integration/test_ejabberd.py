"""The doors of ejabberd: its API needs the secret, TLS is 1.2 or later, a renewed certificate is served."""

import socket
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx
import psutil
import pytest
from cryptography.x509 import load_pem_x509_certificate
from tlim_devstack.certificates import ensure_certificates
from tlim_devstack.credentials import load_or_generate
from tlim_devstack.ejabberd import NAME, Ejabberd
from tlim_devstack.ports import Ports
from tlim_devstack.private_files import write_private
from tlim_devstack.privileges import hand_over
from tlim_devstack.processes import ServerProcess, dies_with_parent
from tlim_devstack.waiting import accepts_connections, wait_until
from tlim_devstack.xmpp_servers import DOMAIN, XmppSettings
from tlim_devstack.xmpp_tls import STREAM, ask, begin_tls, serial, serials


@dataclass
class Node:
    """A running ejabberd. Its API listens to `api_address`, and its WebSocket has TLS, as outside of development."""

    ejabberd: Ejabberd
    certificate: Path
    api_address: str

    @property
    def api(self) -> str:
        return f"http://{self.api_address}:{self.ejabberd.settings.ports.xmpp_api}/api"

    @property
    def secret(self) -> str:
        return self.ejabberd.settings.credentials.xmpp_api

    def ask(self, secret: str | None, command: str = "check_account") -> httpx.Response:
        headers = {} if secret is None else {"Authorization": f"Bearer {secret}"}
        body = {"user": "nobody", "host": DOMAIN}
        return httpx.post(f"{self.api}/{command}", json=body, headers=headers, trust_env=False, timeout=10)

    def replace_certificate(self, pem: str) -> None:
        write_private(self.certificate, pem)
        hand_over(self.certificate.parent, NAME)

    def serials(self) -> list[int]:
        ports = self.ejabberd.settings.ports
        return serials("127.0.0.1", ports.xmpp, ports.websocket)


def own_address() -> str:
    """Return an address of this machine that is not loopback, if it has one. What goes there does not leave it."""
    addresses = (address for one in psutil.net_if_addrs().values() for address in one)
    found = (address.address for address in addresses if address.family == socket.AF_INET)
    return next((address for address in found if not address.startswith("127.")), "127.0.0.2")


@pytest.fixture(scope="module")
def node() -> Iterator[Node]:
    with TemporaryDirectory() as directory:
        home = Path(directory)
        home.chmod(0o711)
        _, certificate = ensure_certificates(home / "secrets", DOMAIN)
        settings = XmppSettings(home, Ports.random(), load_or_generate(home / "secrets"), certificate, "127.0.0.1")
        ejabberd = Ejabberd(settings)
        config = home / "ejabberd" / "ejabberd.yml"
        program = ejabberd.prepare()
        text = config.read_text().replace("tls: false", "tls: true")
        api = f"port: {settings.ports.xmpp_api}\n    ip: "
        config.write_text(text.replace(f'{api}"127.0.0.1"', f'{api}"{own_address()}"'))
        process = ServerProcess("ejabberd", dies_with_parent(program.command), home / "log", program.environment)
        try:
            ports = (settings.ports.xmpp, settings.ports.websocket, settings.ports.component)
            process.wait_ready(lambda: all(map(accepts_connections, ports)))
            yield Node(ejabberd, home / "ejabberd" / certificate.name, own_address())
        finally:
            process.stop()


def test_the_api_serves_another_host_with_the_secret_and_nobody_without(node: Node) -> None:
    assert [node.ask(secret).status_code for secret in (None, "wrong", f"{node.secret}x")] == [401] * 3
    account = (f"admin@{DOMAIN}", node.secret)
    assert httpx.post(f"{node.api}/status", json={}, auth=account, trust_env=False, timeout=10).status_code == 401
    answer = node.ask(node.secret)
    assert (answer.status_code, answer.json()) == (200, 1)  # there is no such account


def test_the_secret_opens_only_what_accounts_need(node: Node) -> None:
    assert node.ask(node.secret, "get_last").status_code == 403


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
@pytest.mark.parametrize("door", ["xmpp", "websocket"])
def test_tls_before_1_2_is_refused(node: Node, door: str) -> None:
    with socket.create_connection(("127.0.0.1", getattr(node.ejabberd.settings.ports, door)), timeout=10) as plain:
        if door == "xmpp":
            begin_tls(plain)
        with pytest.raises(OSError, match=r"(?i)protocol|alert|eof|reset"):
            serial(plain, ssl.TLSVersion.TLSv1_1)


def test_nobody_can_log_in_before_starttls(node: Node) -> None:
    with socket.create_connection(("127.0.0.1", node.ejabberd.settings.ports.xmpp), timeout=10) as plain:
        features = ask(plain, STREAM, b"</stream:features>")
        assert b"<required/>" in features
        assert b"<mechanism>" not in features
        auth = "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>AGFsaWNlAHg=</auth>"
        assert b"<encryption-required" in ask(plain, auth, b"</failure>")


def test_a_renewed_certificate_is_served_without_a_restart_and_a_broken_one_is_not(node: Node) -> None:
    before = load_pem_x509_certificate(node.certificate.read_bytes())
    assert node.serials() == [before.serial_number] * 2
    with TemporaryDirectory() as directory:
        _, renewed = ensure_certificates(Path(directory), DOMAIN)
        pem = renewed.read_text()
    log = node.certificate.parent / "ejabberd.log"
    node.replace_certificate(pem[: pem.index("-----BEGIN PRIVATE KEY")])
    wait_until(lambda: "no key fits" in log.read_text(), "a look at the broken file", timeout=20)
    assert node.serials() == [before.serial_number] * 2
    node.replace_certificate(pem)
    after = load_pem_x509_certificate(pem.encode()).serial_number
    wait_until(lambda: node.serials() == [after] * 2, "the renewed certificate", timeout=20)
