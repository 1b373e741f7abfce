"""The passwords and keys of a stack. They are generated at its first start, in files that only its user can read."""

import json
import secrets
from dataclasses import asdict, dataclass
from pathlib import Path

from tlim_admin.databases import roles
from tlim_admin.object_store import ADMIN_ACTIONS, FILES_BUCKET, S3Key, actions_on
from tlim_admin.secret_files import new_token_key
from tlim_protocol.streams import PERMISSIONS

from tlim_devstack.private_files import write_private

DEMO_USERS = ("alice", "bob", "carol")
DEMO_PASSWORD_BYTES = 6  # 12 hexadecimal digits, because people type these passwords


@dataclass(frozen=True)
class Credentials:
    """The secrets of one stack.

    `nats_monitor` is in the path of NATS' monitoring pages. `users` are the demo users' XMPP passwords.
    """

    nats: dict[str, str]
    postgres_admin: str
    postgres_roles: dict[str, str]
    s3_admin: tuple[str, str]
    s3_file_api: tuple[str, str]
    component: str
    xmpp_api: str
    nats_monitor: str
    users: dict[str, str]

    def s3_keys(self) -> tuple[S3Key, S3Key]:
        """Return the administrator's key, and the key of file-api, which is valid for one bucket only."""
        admin = S3Key("admin", *self.s3_admin, ADMIN_ACTIONS)
        return admin, S3Key("file-api", *self.s3_file_api, actions_on(FILES_BUCKET))


def _generate() -> Credentials:
    return Credentials(
        nats={user: secrets.token_hex(24) for user in PERMISSIONS},
        postgres_admin=secrets.token_hex(24),
        postgres_roles={role: secrets.token_hex(24) for role in roles()},
        s3_admin=(secrets.token_hex(10), secrets.token_hex(24)),
        s3_file_api=(secrets.token_hex(10), secrets.token_hex(24)),
        component=secrets.token_hex(24),
        xmpp_api=secrets.token_hex(24),
        nats_monitor=secrets.token_hex(24),
        users={user: secrets.token_hex(DEMO_PASSWORD_BYTES) for user in DEMO_USERS},
    )


def load_or_generate(directory: Path) -> Credentials:
    """Return the credentials kept in `directory`. The first call generates them, and the key that signs tokens."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not token_key_file(directory).exists():
        write_private(token_key_file(directory), new_token_key())
    path = directory / "credentials.json"
    old = json.loads(path.read_text()) if path.exists() else {}
    kept = {name: old.get(name, new) for name, new in asdict(_generate()).items()}
    if kept.keys() != old.keys():  # there were none, or those of an older release
        write_private(path, json.dumps(kept, indent=1))
    kept["s3_admin"], kept["s3_file_api"] = tuple(kept["s3_admin"]), tuple(kept["s3_file_api"])
    return Credentials(**kept)


def token_key_file(directory: Path) -> Path:
    """Return the path of the EdDSA key that signs access tokens (PEM, PKCS#8)."""
    return directory / "token-signing-key.pem"
