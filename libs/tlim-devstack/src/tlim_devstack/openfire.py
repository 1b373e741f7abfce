"""Openfire from an unpacked distribution, for the stories: it has no module of ours, so clients address the bridge."""

import os
import shutil
import socket
import ssl
from pathlib import Path
from typing import cast
from xml.sax.saxutils import escape

from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, load_pem_private_key
from cryptography.hazmat.primitives.serialization.pkcs12 import serialize_key_and_certificates
from cryptography.x509 import load_pem_x509_certificate

from tlim_devstack.failures import StackError
from tlim_devstack.layout import system_program
from tlim_devstack.privileges import hand_over, not_as_root
from tlim_devstack.supervision import Program
from tlim_devstack.waiting import accepts_connections
from tlim_devstack.xmpp_servers import COMPONENT, DOMAIN, XmppSettings, fill_template

NAME = "openfire"
DISTRIBUTION = "TLIM_OPENFIRE_HOME"
STARTER = "org.jivesoftware.openfire.starter.ServerStarter"
SCHEMA = Path("resources", "database", "openfire_hsqldb.sql")
KEYSTORE = Path("resources", "security", "keystore")
KEYSTORE_PASSWORD = b"changeit"  # Openfire's default; only Openfire's user can read the file
HEAD = (
    f"<stream:stream to='{DOMAIN}' version='1.0' xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams'>"
)


class Openfire:
    """One Openfire with the settings of docs/openfire.md. Its data is new at each start."""

    package = NAME
    accounts_api = None
    diverts = False

    def __init__(self, settings: XmppSettings) -> None:
        self.settings, self.home = settings, settings.home / NAME
        given = os.environ.get(DISTRIBUTION, "")
        if not given or not (Path(given) / SCHEMA).exists():
            raise StackError(f"{DISTRIBUTION} is {given!r}: it must be the folder of an unpacked Openfire distribution")
        self.distribution = Path(given).resolve()

    def prepare(self) -> Program:
        """Copy all but the libraries, write the settings into the schema of the database; return the server."""
        shutil.rmtree(self.home, ignore_errors=True)
        for folder in ("conf", "plugins", "resources"):
            shutil.copytree(self.distribution / folder, self.home / folder)
        values = self._values()
        fill_template("openfire/openfire.xml", self.home / "conf" / "openfire.xml", values)
        settings = fill_template("openfire/settings.sql", self.home / "settings.sql", values)
        with (self.home / SCHEMA).open("a") as schema:
            schema.write(settings.read_text())
        (self.home / KEYSTORE).write_bytes(_keystore(self.settings.certificate))
        hand_over(self.home, NAME)
        libraries = self.distribution / "lib"
        options = ["-Xmx512m", f"-DopenfireHome={self.home}", f"-Dopenfire.lib.dir={libraries}"]
        command = [str(system_program("java", "default-jre-headless")), *options, "-cp", f"{libraries}/*", STARTER]
        return Program(NAME, not_as_root(NAME, command, self.home, libraries), {"HOME": str(self.home)})

    def _values(self) -> dict[str, object]:
        ports, credentials = self.settings.ports, self.settings.credentials
        return {
            "address": self.settings.public_address,
            "domain": DOMAIN,
            "component": COMPONENT.removesuffix(f".{DOMAIN}"),
            "component_secret": credentials.component,
            "default_secret": credentials.xmpp_api,
            "component_port": ports.component,
            "client_port": ports.xmpp,
            "websocket_port": ports.websocket,
        }

    def ready(self, log: str) -> bool:
        """Whether it listens for clients and the component."""
        del log
        return all(map(accepts_connections, (self.settings.ports.xmpp, self.settings.ports.component)))

    def register(self, user: str, password: str) -> None:
        """Create an account as a client does (XEP-0077)."""
        tls = ssl.create_default_context(cafile=str(self.settings.certificate))
        tls.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # trust this certificate alone
        account = f"<username>{escape(user)}</username><password>{escape(password)}</password>"
        query = f"<iq type='set' id='1'><query xmlns='jabber:iq:register'>{account}</query></iq>"
        with socket.create_connection(("127.0.0.1", self.settings.ports.xmpp), timeout=20) as plain:
            _ask(plain, HEAD, "</stream:features>")
            _ask(plain, "<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>", "<proceed")
            with tls.wrap_socket(plain, server_hostname=DOMAIN) as stream:
                _ask(stream, HEAD, "</stream:features>")
                answer = _ask(stream, query, "<iq", ">")
                if 'type="result"' not in answer:
                    raise StackError(f"Openfire did not register {user}: {answer}")


def _ask(stream: socket.socket, text: str, *signs: str) -> str:
    """Send a text and return the answer as soon as these signs are in it."""
    stream.sendall(text.encode())
    answer = ""
    while not all(sign in answer for sign in signs):
        received = stream.recv(65_536).decode()
        if not received:
            raise StackError(f"Openfire closed the connection: {answer}")
        answer += received
    return answer


def _keystore(file: Path) -> bytes:
    """Return PKCS #12 of a certificate with its key. Java reads it also where Openfire asks for a JKS."""
    pem = file.read_bytes()
    key = cast("EllipticCurvePrivateKey", load_pem_private_key(pem, None))  # certificates.py makes such keys
    certificate = load_pem_x509_certificate(pem)
    return serialize_key_and_certificates(b"tlim", key, certificate, None, BestAvailableEncryption(KEYSTORE_PASSWORD))
