"""Self-made certificates: a client that compares names takes them."""

import ssl
from pathlib import Path

import pytest
from tlim_admin.certificates import new_pair


def handshake(folder: Path, host: str) -> None:
    """Have a client that wants `host` meet a server with a new certificate, in memory."""
    authority, certificate = new_pair("im.example.com", also=("gateway", "192.0.2.1", "2001:db8::1"))
    (folder / "certificate.pem").write_text(certificate)
    server_side = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server_side.load_cert_chain(folder / "certificate.pem")
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = ssl.create_default_context(cadata=authority).wrap_bio(back, there, server_hostname=host)
    server = server_side.wrap_bio(there, back, server_side=True)
    for side in (client, server, client):
        try:
            side.do_handshake()
        except ssl.SSLWantReadError:
            continue


@pytest.mark.parametrize("host", ["im.example.com", "gateway", "192.0.2.1", "2001:db8::1", "localhost", "127.0.0.1"])
def test_each_name_and_address_is_taken(tmp_path: Path, host: str) -> None:
    handshake(tmp_path, host)


@pytest.mark.parametrize("host", ["other.example.com", "192.0.2.2"])
def test_another_one_is_not(tmp_path: Path, host: str) -> None:
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(tmp_path, host)
