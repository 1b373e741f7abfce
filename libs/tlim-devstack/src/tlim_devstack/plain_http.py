"""Requests to servers of this machine that speak HTTP without TLS."""

import ssl

NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""Trusts nobody. A client of httpx without `verify=NO_TLS` reads all authorities: up to 60 ms of the processor."""
