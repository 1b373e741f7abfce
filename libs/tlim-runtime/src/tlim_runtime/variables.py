"""Every environment variable that some part of tlim reads. A name that nobody reads is a typing error.

One environment is often that of several parts: a shell, an env file of compose. So each part knows the names of all.
tests/test_variables.py holds this list against the settings of the services, the gateway, the stack and the client.
"""

from collections.abc import Collection, Iterable
from difflib import get_close_matches

PREFIX = "TLIM_"
FILE_SUFFIX = "_FILE"


def _names(words: str) -> frozenset[str]:
    return frozenset(f"{PREFIX}{word}" for word in words.split())


SECRETS = _names("""
    ADMIN_TOKEN COMPONENT_SECRET DATABASE_PASSWORD DATABASE_URL NATS_PASSWORD S3_ACCESS_KEY S3_SECRET_KEY
    TRACES_AUTHORIZATION XMPP_ADMIN_PASSWORD XMPP_ADMIN_TOKEN
""")
"""A service takes each of these from the file that NAME_FILE names, as well."""

SECRET_FILES = frozenset(f"{name}{FILE_SUFFIX}" for name in SECRETS)

SETTINGS = _names("""
    ACCEPT BATCH_SIZE BYTES_PER_USER CLAMD_HOST CLAMD_PORT CLAMD_SOCKET COMPONENT_JID CORS_ORIGINS
    DATABASE_POOL_SIZE DELIVERIES_PER_USER DIRECT_UPLOAD_EXPIRY DOWNLOAD_URL_LIFETIME EXAMINE_INTERVAL
    EXTERNAL_ISSUERS FILE_API GATEWAY GATEWAY_URL HOST IN_FLIGHT_LIMIT JWKS_URL KEEP_RECALLED_TEXT LEADERSHIP_POLL
    LOGINS_AT_ONCE LOGIN_FAILURE_DELAY LOGIN_TIMEOUT LOG_LEVEL MAX_UPLOAD_BYTES MESSAGES_PER_USER MESSAGE_STORE
    MIN_BYTES_PER_SECOND NATS_REPLICAS NATS_URL NATS_USER OPEN_DIRECT_UPLOADS_PER_USER PARTITION_SPAN
    PART_URL_LIFETIME PENDING_EXPIRY PORT POSTGRES_URL READ_TO_ALL RECALL_WINDOW RECEIPTS_PER_USER
    REQUESTS_AT_ONCE_PER_USER RUNNING_DOWNLOADS RUNNING_DOWNLOADS_PER_USER RUNNING_UPLOADS RUNNING_UPLOADS_PER_USER
    S3_BUCKET S3_ENDPOINT_URL S3_PUBLIC_URL S3_PUBLIC_VIA S3_REGION SCANS_AT_ONCE SCAN_INTERVAL SCAN_MAX_BYTES
    SESSION_API SESSION_CHANGES_PER_USER SESSION_MAX_SUBSCRIBERS SHUTDOWN_GRACE STALL_TIMEOUT SWEEP_INTERVAL
    SYSTEM_SEND_TIMEOUT SYSTEM_USERS TOKEN_ATTEMPTS_PER_ADDRESS TOKEN_ATTEMPTS_PER_USER TOKEN_AUDIENCE TOKEN_ISSUER
    TOKEN_KEY_FILE TOKEN_LIFETIME TRACES_SHARE TRACES_URL TRUST_REQUEST_USER UNSENT_EXPIRY UPLOADS_PER_USER
    UPLOAD_TIMEOUT USER_LOOKUP_TIMEOUT USER_QUOTA_BYTES WORKERS XMPP_ADMIN_URL XMPP_ADMIN_USER XMPP_BRIDGE
    XMPP_CA_FILE XMPP_CLIENT_PORT XMPP_COMPONENT_PORT XMPP_DOMAIN XMPP_HOST XMPP_TIMEOUT
""")
"""What the services and their commands read."""

GATEWAY = _names("""
    BIND CERTIFICATE_FILE CERTIFICATE_KEY_FILE CORS_ORIGINS FILE_API GATEWAY_SCHEME MESSAGE_STORE PAGES
    PORT_FILES PORT_GATEWAY S3 S3_BUCKET SESSION_API TRUSTED_PROXIES XMPP_BRIDGE
""")
"""What deploy/caddy/Caddyfile reads."""

STACK = _names("""
    BIND HOME OPENFIRE_HOME XMPP_SERVER PORT_COMPONENT PORT_FILES PORT_FILE_API PORT_GATEWAY PORT_MESSAGE_STORE
    PORT_NATS PORT_NATS_MONITOR PORT_POSTGRES PORT_S3 PORT_S3_FILER PORT_S3_FILER_GRPC PORT_S3_GRPC PORT_S3_MASTER
    PORT_S3_MASTER_GRPC PORT_S3_VOLUME PORT_S3_VOLUME_GRPC PORT_SESSION_API PORT_WEBSOCKET PORT_XMPP PORT_XMPP_API
    PORT_XMPP_BRIDGE
""")
"""What `make run` reads."""

CLIENT = _names("ADMIN_TOKEN CA_FILE COMPONENT DOMAIN GATEWAY PASSWORD PROFILE XMPP")
"""What the command `tlim` reads."""

TESTS = (f"{PREFIX}E2E_", f"{PREFIX}TEST_")
"""How the names that tests read begin."""

CONTAINERS = _names("BASE_DEBIAN BASE_PYTHON IMAGES REGISTRY VERSION")
"""What docker-compose.yml and scripts/images read besides, to name images."""

KNOWN = SECRETS | SECRET_FILES | SETTINGS | GATEWAY | STACK | CLIENT | CONTAINERS

_SERVICE_HOST = "_SERVICE_HOST"


def mistyped(environment: Iterable[str], further: Collection[str] = ()) -> dict[str, str | None]:
    """Return the names that begin with TLIM_ and that nobody reads, each with the nearest name that somebody reads.

    `further` are names that count as well. Names in lower case count, as they do for pydantic.
    """
    names = sorted({name.upper() for name in environment if name.upper().startswith(PREFIX)})
    known = KNOWN.union(further)
    return {
        name: _nearest(name, known)
        for name in names
        if name not in known and not name.startswith(TESTS) and not _is_of_kubernetes(name, names)
    }


def mistyped_line(name: str, nearest: str | None) -> str:
    """Return what a person is told about such a name."""
    return f"{name}: unknown" + (f", did you mean {nearest}?" if nearest else "")


def _nearest(name: str, known: Iterable[str]) -> str | None:
    without_prefix = [other.removeprefix(PREFIX) for other in sorted(known)]
    found = get_close_matches(name.removeprefix(PREFIX), without_prefix, n=1)
    return f"{PREFIX}{found[0]}" if found else None


def _is_of_kubernetes(name: str, names: Iterable[str]) -> bool:
    """Whether Kubernetes set this variable for a Service that is called tlim-something (enableServiceLinks)."""
    services = (other.removesuffix(_SERVICE_HOST) for other in names if other.endswith(_SERVICE_HOST))
    return any(name.startswith((f"{service}_SERVICE_", f"{service}_PORT")) for service in services)
