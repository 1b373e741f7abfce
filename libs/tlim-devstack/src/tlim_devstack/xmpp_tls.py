"""What an XMPP server shows to a client that trusts everybody: its features before TLS, and its certificate."""

import socket
import ssl

from cryptography.x509 import load_der_x509_certificate

from tlim_devstack.xmpp_servers import DOMAIN

STREAM = (
    f"<stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams' to='{DOMAIN}' version='1.0'>"
)
STARTTLS = "<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>"


def ask(stream: socket.socket, text: str, sign: bytes) -> bytes:
    """Send text, and return what comes until `sign` is in it or the stream ends."""
    stream.sendall(text.encode())
    answer = b""
    while sign not in answer and (received := stream.recv(65_536)):
        answer += received
    return answer


def begin_tls(plain: socket.socket) -> None:
    """Have the server proceed with TLS (RFC 6120, section 5)."""
    ask(plain, STREAM, b"</stream:features>")
    ask(plain, STARTTLS, b"<proceed")


def serial(plain: socket.socket, newest: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3) -> int:
    """Shake hands, trusting everybody, and return the serial number of the server's certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version, context.maximum_version = ssl.TLSVersion.MINIMUM_SUPPORTED, newest
    with context.wrap_socket(plain, server_hostname=DOMAIN) as stream:
        return load_der_x509_certificate(stream.getpeercert(binary_form=True) or b"").serial_number


def serials(host: str, xmpp: int, websocket: int) -> list[int]:
    """Return the serial numbers of the certificates at the ports for XMPP clients and for WebSocket."""
    with socket.create_connection((host, xmpp), timeout=10) as plain:
        begin_tls(plain)
        first = serial(plain)
    with socket.create_connection((host, websocket), timeout=10) as plain:
        return [first, serial(plain)]
