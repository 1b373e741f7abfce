"""Plain HTTP: for loopback, or behind a proxy of the operator's that speaks TLS with people."""

from ipaddress import ip_address


class PlainHttpError(Exception):
    """People would send passwords and tokens over the network unencrypted."""


def check(address: str, proxies: str) -> None:
    """Raise PlainHttpError if the gateway would serve plain HTTP at an address that is not loopback, behind no proxy.

    `proxies` are the addresses of trusted proxies, with spaces between. An IPv6 address may be in brackets.
    """
    try:
        is_loopback = ip_address(address.strip("[]")).is_loopback
    except ValueError:
        raise PlainHttpError(f"TLIM_BIND is {address!r}: it must be an IP address") from None
    if not is_loopback and not proxies.strip():
        raise PlainHttpError(
            f"TLIM_BIND is {address}, where passwords would pass over plain HTTP: add deploy/compose/tls.yml to "
            "COMPOSE_FILE, or name a proxy of yours that has TLS in TLIM_TRUSTED_PROXIES"
        )
