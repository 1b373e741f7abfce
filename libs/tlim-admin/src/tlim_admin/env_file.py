"""Settings that have no effect in the .env of compose: a start with one of them is refused, and says what has."""

from collections.abc import Mapping


class EnvFileError(Exception):
    """A line of .env says something that nobody would hear."""


def _names(words: str) -> list[str]:
    return [f"TLIM_{word}" for word in words.split()]


_ADDRESSES = _names("""
    COMPONENT_JID FILE_API HOST JWKS_URL MESSAGE_STORE NATS_URL NATS_USER PAGES PORT POSTGRES_URL S3 S3_PUBLIC_VIA
    SESSION_API XMPP_ADMIN_URL XMPP_BRIDGE XMPP_CLIENT_PORT XMPP_COMPONENT_PORT XMPP_HOST
""")
_SECRETS = _names("COMPONENT_SECRET DATABASE_PASSWORD NATS_PASSWORD S3_SECRET_KEY XMPP_ADMIN_TOKEN")

INSTEAD = {
    **dict.fromkeys(
        _ADDRESSES,
        "docker-compose.yml sets it; an override that reads it gives it empty to `prepare`, like external-s3.yml",
    ),
    **dict.fromkeys(
        [*_SECRETS, *(f"{name}_FILE" for name in _SECRETS), *_names("DATABASE_URL TOKEN_KEY_FILE XMPP_CA_FILE")],
        "docker-compose.yml sets it, and what is secret is in the folder secrets",
    ),
    **dict.fromkeys(_names("CERTIFICATE_FILE GATEWAY_SCHEME"), "add deploy/compose/tls.yml to COMPOSE_FILE"),
    "TLIM_CERTIFICATE_KEY_FILE": "with deploy/compose/tls.yml the file of TLIM_CERTIFICATE_FILE has the key as well",
    **dict.fromkeys(_names("S3_BUCKET S3_ENDPOINT_URL"), "add deploy/compose/external-s3.yml to COMPOSE_FILE"),
    "TLIM_NATS_REPLICAS": "there is one NATS here, and a cluster of it in deploy/k8s",
    **dict.fromkeys(_names("ADMIN_TOKEN GATEWAY"), "docker compose run --env gives it to a command of admin"),
}
"""Name → what has the effect that a person wants. tests/deploy/test_env_file.py holds it against docker-compose.yml."""


def check(environment: Mapping[str, str]) -> None:
    """Raise EnvFileError for the settings without effect. An override in which one has an effect gives it empty."""
    found = [f"{name} has no effect in .env: {INSTEAD[name]}" for name in sorted(INSTEAD) if environment.get(name)]
    if found:
        raise EnvFileError("; ".join(found))
