"""When the certificates end that clients are shown. They are not verified: an expired one is what we look for."""

import asyncio
import ssl

from cryptography.x509 import load_der_x509_certificate
from pydantic import HttpUrl
from tlim_runtime.outages import Unavailable

TIMEOUT_S = 5.0
"""The gateway is near."""


def unverified() -> ssl.SSLContext:
    """Return a context for connections over which nothing is sent."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def end_of(certificate: bytes) -> float:
    """Return when a certificate (DER) ends, as Unix time; raises ValueError."""
    return load_der_x509_certificate(certificate).not_valid_after_utc.timestamp()


async def end_at_gateway(url: HttpUrl) -> float | None:
    """Return when the gateway's certificate ends; None: it speaks no TLS. Raises Unavailable."""
    if url.scheme != "https":
        return None
    try:
        async with asyncio.timeout(TIMEOUT_S):
            _, writer = await asyncio.open_connection(url.host, url.port, ssl=unverified())
            try:
                return end_of(writer.get_extra_info("ssl_object").getpeercert(binary_form=True))
            finally:
                writer.close()
    except (OSError, TimeoutError, ValueError) as error:
        raise Unavailable(f"certificate of the gateway: {error or type(error).__name__}") from error
