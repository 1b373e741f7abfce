"""The end of the gateway's certificate is seen, also of one that has ended or that nobody trusts."""

import asyncio
import ssl
from pathlib import Path

import pytest
from cryptography.x509 import load_pem_x509_certificate
from pydantic import HttpUrl
from tlim_devstack.certificates import ensure_certificates
from tlim_devstack.waiting import free_port
from tlim_runtime.outages import Unavailable
from xmpp_bridge.certificates import end_at_gateway


async def _close(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.close()


async def test_the_end_of_the_gateways_certificate_is_read_without_trusting_it(tmp_path: Path) -> None:
    _, file = ensure_certificates(tmp_path, "im.example")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    server = await asyncio.start_server(_close, "127.0.0.1", 0, ssl=context)
    async with server:
        port = server.sockets[0].getsockname()[1]
        ends = await end_at_gateway(HttpUrl(f"https://127.0.0.1:{port}"))
    assert ends == load_pem_x509_certificate(file.read_bytes()).not_valid_after_utc.timestamp()


async def test_a_gateway_that_is_away_is_named_and_one_without_tls_has_no_certificate() -> None:
    with pytest.raises(Unavailable, match="certificate of the gateway"):
        await end_at_gateway(HttpUrl(f"https://127.0.0.1:{free_port()}"))
    assert await end_at_gateway(HttpUrl("http://127.0.0.1:9090")) is None
