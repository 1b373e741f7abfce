"""Plain HTTP: for loopback, or behind a proxy of the operator's that speaks TLS with people."""

from ipaddress import ip_address, ip_network

_NOBODY = {ip_network("255.255.255.255/32"), ip_network("0.0.0.0/32"), ip_network("::/128")}
"""Addresses that no proxy calls from. The first one is what the gateway has if no proxy is named."""


class PlainHttpError(Exception):
    """People would send passwords and tokens over the network unencrypted."""


def check(address: str, proxies: str) -> None:
    """Raise PlainHttpError if the gateway would serve plain HTTP at an address that is not loopback, behind no proxy.

    `proxies` are the addresses of trusted proxies, with spaces between. An IPv6 address may be in brackets. At every
    address of the host a proxy is not enough: the others would lead past it.
    """
    try:
        at = ip_address(address.strip("[]"))
    except ValueError:
        raise PlainHttpError(f"TLIM_BIND is {address!r}: it must be an IP address") from None
    if not at.is_loopback and not any(map(_names_somebody, proxies.split())):
        raise PlainHttpError(
            f"TLIM_BIND is {address}, where passwords would pass over plain HTTP: add deploy/compose/tls.yml to "
            "COMPOSE_FILE, or name a proxy of yours that has TLS in TLIM_TRUSTED_PROXIES"
        )
    if at.is_unspecified:
        raise PlainHttpError(
            f"TLIM_BIND is {address}, every address of this host, where others than the proxy would reach plain HTTP: "
            "name the address of the interface that the proxy reaches, or add deploy/compose/tls.yml to COMPOSE_FILE"
        )


def _names_somebody(proxy: str) -> bool:
    try:
        return ip_network(proxy, strict=False) not in _NOBODY
    except ValueError:  # a word that the gateway knows, or refuses
        return True
