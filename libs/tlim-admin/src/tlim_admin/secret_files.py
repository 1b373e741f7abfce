"""The secrets of a deployment as files, one for each: made once, at random, and never replaced.

Two files are not random: the users of NATS and the keys of S3. They are written anew from the others at each call,
because a new release can have other users and permissions.
"""

import os
import secrets
from collections.abc import Callable, Mapping
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from tlim_protocol.streams import PERMISSIONS
from tlim_runtime.secret_values import problem_of

from tlim_admin.certificates import is_named, is_ours, names_in, new_pair
from tlim_admin.databases import XMPP, roles
from tlim_admin.nats_users import users_document
from tlim_admin.object_store import ADMIN_ACTIONS, FILES_BUCKET, S3Key, actions_on, identities_document

RANDOM_BYTES = 24
SHORTEST = 32
"""A file that somebody has filled by hand needs so many characters. Ours have 48."""

NATS_USERS, S3_IDENTITIES = "nats-users.conf", "s3-identities.json"
AUTHORITY, CERTIFICATE, TOKEN_KEY = "ca.pem", "xmpp.pem", "token-signing-key.pem"
XMPP_DATABASE = f"postgres-{XMPP}"
"""Only a cluster of ejabberd needs it, so it may be missing."""
S3_KEYS = {"s3-admin": ("tlim-admin", ADMIN_ACTIONS), "s3-file-api": ("tlim-file-api", actions_on(FILES_BUCKET))}
"""The secret keys of S3: the name of the file → its access key, which is a name and no secret, and what it may do."""

_SECRET, _PUBLIC = 0o400, 0o444


class SecretError(Exception):
    """A secret is missing or weak, or a derived file is not what the other secrets say."""


def random_names() -> list[str]:
    """Return the names of the files that hold one random value each."""
    return [
        *(f"nats-{user}" for user in PERMISSIONS),
        "postgres-admin",
        *(f"postgres-{role}" for role in roles()),
        *S3_KEYS,
        "component",
        "xmpp-api",
    ]


def new_token_key() -> str:
    """Return a new EdDSA key that signs access tokens (PEM, PKCS#8)."""
    key = Ed25519PrivateKey.generate()
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def write_missing(directory: Path, domain: str, owner: int) -> list[str]:
    """Make the secrets that are not there, and write the derived files anew; return the names of what was written.

    The files belong to the user `owner`, and so do those that somebody has put there. Only that user can read what we
    make, except the authority's certificate. If we are not root, no file changes its owner. The certificate is valid
    for `domain` and for the servers' names among the containers.
    Raises SecretError if only one of certificate and authority is there: to make both would replace the operator's. An
    authority of ours alone is what a kill between the two has left: both are made anew.
    """
    has_certificate, has_authority = ((directory / name).exists() for name in (CERTIFICATE, AUTHORITY))
    if has_authority and not has_certificate:
        has_authority = not is_ours((directory / AUTHORITY).read_bytes())
    if has_certificate != has_authority:
        there, missing = (CERTIFICATE, AUTHORITY) if has_certificate else (AUTHORITY, CERTIFICATE)
        raise SecretError(f"{there} is there without {missing}: add the one that belongs to it, or remove {there}")
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    names = [*random_names(), XMPP_DATABASE]
    makers: dict[str, Callable[[], str]] = dict.fromkeys(names, lambda: secrets.token_hex(RANDOM_BYTES))
    makers[TOKEN_KEY] = new_token_key
    written = [name for name in makers if not (directory / name).exists()]
    for name in written:
        _write(directory / name, makers[name](), owner)
    if not has_certificate:
        authority, certificate = new_pair(domain, also=("ejabberd", "gateway"))
        _write(directory / AUTHORITY, authority, owner, _PUBLIC)
        _write(directory / CERTIFICATE, certificate, owner)
        written += [CERTIFICATE, AUTHORITY]
    for name, text in derived(_values(directory)).items():
        path = directory / name
        if not path.exists() or path.read_text() != text:
            _write(path, text, owner)
            written.append(name)
    if os.geteuid() == 0:
        for path in directory.iterdir():
            os.chown(path, owner, owner, follow_symlinks=False)
    return written


def derived(values: Mapping[str, str]) -> dict[str, str]:
    """Return the files that follow from the random values: name → content."""
    keys = [S3Key(access_key, access_key, values[name], actions) for name, (access_key, actions) in S3_KEYS.items()]
    return {
        NATS_USERS: users_document({user: values[f"nats-{user}"] for user in PERMISSIONS}),
        S3_IDENTITIES: identities_document(keys),
    }


def check(directory: Path, domain: str | None = None) -> None:
    """Raise SecretError if a secret is missing or weak, or if a derived file is out of date.

    With a domain also if the certificate is for another one: nobody could log in, and all servers would be healthy.
    """
    values = _values(directory)
    for name in weak(directory):
        raise SecretError(f"{name} is too easy to guess: it needs {SHORTEST} random characters")
    for name in (AUTHORITY, CERTIFICATE, TOKEN_KEY):
        _read(directory / name)
    for name, text in derived(values).items():
        if _read(directory / name) != text.strip():
            raise SecretError(f"{name} is not what the other secrets say: run make secrets")
    if domain is not None:
        _check_names(directory / CERTIFICATE, domain)


def _check_names(certificate: Path, domain: str) -> None:
    try:
        names = names_in(certificate.read_bytes())
    except ValueError:
        raise SecretError(f"{certificate.name} has no certificate") from None
    if not is_named(domain, names):
        raise SecretError(
            f"{certificate.name} is for {', '.join(names) or 'no name'}, and TLIM_XMPP_DOMAIN is {domain}: put one "
            f"for this domain there, or remove {certificate.name} and {AUTHORITY} and run make secrets"
        )


def weak(directory: Path) -> list[str]:
    """Return the names of those secrets in the folder that are easy to guess. Not all need to be there."""
    names = [name for name in (*random_names(), XMPP_DATABASE) if (directory / name).exists()]
    values = {name: _read(directory / name) for name in names}
    return [name for name, value in values.items() if _is_weak(value)]


def _is_weak(value: str) -> bool:
    return len(value) < SHORTEST or len(set(value)) < SHORTEST // 4 or problem_of(value) is not None


def role_passwords(directory: Path) -> dict[str, str]:
    """Return the passwords of the roles of PostgreSQL: role → password."""
    return {role: _read(directory / f"postgres-{role}") for role in roles()}


def xmpp_password(directory: Path) -> dict[str, str]:
    """Return the password of ejabberd's role, if the folder has one: role → password."""
    path = directory / XMPP_DATABASE
    return {XMPP: _read(path)} if path.exists() else {}


def _values(directory: Path) -> dict[str, str]:
    return {name: _read(directory / name) for name in random_names()}


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError as error:
        raise SecretError(f"{path.name} cannot be read ({error.strerror}): run make secrets") from error


def replace(path: Path, text: str) -> None:
    """Replace a secret; the file keeps its owner. Whoever reads it sees the old content or the new one."""
    _write(path, text, path.stat().st_uid)


def _write(path: Path, text: str, owner: int, mode: int = _SECRET) -> None:
    draft = path.with_name(f"{path.name}.new")
    draft.unlink(missing_ok=True)
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "w") as file:
        file.write(text)
        os.fchmod(file.fileno(), mode)
        if os.geteuid() == 0:
            os.fchown(file.fileno(), owner, owner)  # last: in a container root may not change files of others
    draft.replace(path)
