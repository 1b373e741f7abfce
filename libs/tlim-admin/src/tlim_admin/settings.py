"""What the commands are told by their environment."""

import re
from pathlib import Path
from typing import Annotated, Self

from pydantic import AfterValidator, Field, SecretStr, field_validator, model_validator
from tlim_runtime.provision import ProvisionSettings
from tlim_runtime.settings import EnvironmentSettings

from tlim_admin.object_store import FILES_BUCKET, REGION

_SERVER = re.compile(r"postgres(?:ql)?://(?P<where>[^@/?]+)/?(?P<options>\?.*)?")


def _over_http(address: str) -> str:
    if not address.startswith(("http://", "https://")):
        raise ValueError("must begin with http:// or https://")
    return address


HttpAddress = Annotated[str, AfterValidator(_over_http)]


class S3Settings(EnvironmentSettings):
    """Where S3 is, and the key that the command uses."""

    s3_endpoint_url: HttpAddress
    """Where S3 is, for the services."""
    s3_bucket: str = FILES_BUCKET
    """The bucket of files."""
    s3_region: str = REGION
    """The region that requests are signed for."""
    s3_access_key: SecretStr
    """The name of the key."""
    s3_secret_key: SecretStr
    """The secret of the key."""


class BucketSettings(S3Settings):
    """The key is the administrator's; origins of web pages as the services have them."""

    cors_origins: list[str] = Field(default=[])


class PostgresSettings(EnvironmentSettings):
    """Where PostgreSQL is: `postgresql://host:port`, with options such as `?sslmode=require`; no role, no database."""

    postgres_url: str
    """The server: `postgresql://host:port`. Roles and databases are known, passwords are in files."""

    @field_validator("postgres_url")
    @classmethod
    def _names_a_server_only(cls, url: str) -> str:
        if _SERVER.fullmatch(url) is None:
            raise ValueError("must be postgresql://host:port: roles and databases are known, passwords are in files")
        return url

    def url_of(self, role: str, database: str) -> str:
        """Return the URL for a role in a database, without its password."""
        parts = _SERVER.fullmatch(self.postgres_url)
        where, options = (parts["where"], parts["options"] or "") if parts else ("", "")
        return f"postgresql://{role}@{where}/{database}{options}"


class AccountsSettings(EnvironmentSettings):
    """The API of ejabberd and its secret, as session-api has them. Without these the accounts are kept elsewhere."""

    xmpp_admin_url: HttpAddress | None = None
    """The API of ejabberd, as session-api has it."""
    xmpp_admin_token: SecretStr | None = None
    """The secret of that API."""
    xmpp_domain: str = "im.itonglian.com"
    """The domain of all accounts."""

    @model_validator(mode="after")
    def _has_a_secret(self) -> Self:
        if self.xmpp_admin_url is not None and self.xmpp_admin_token is None:
            raise ValueError("xmpp_admin_url needs xmpp_admin_token")
        return self


class BackupSettings(S3Settings, PostgresSettings, AccountsSettings):
    """All that keeps data: PostgreSQL, S3, and the accounts of the XMPP server."""


class EraseSettings(PostgresSettings, AccountsSettings):
    """All that is changed directly. file-api removes the bytes from S3."""


class ReplaySettings(ProvisionSettings):
    """NATS as its provisioning has it, and the instances that go on, `host:port` with blanks between."""

    message_store: str
    """The instances of message-store."""
    xmpp_bridge: str
    """The instances of xmpp-bridge."""


class OperationsSettings(EnvironmentSettings):
    """The gateway, and a token with scope `admin`."""

    gateway: HttpAddress
    """The address of the gateway, such as `https://chat.example.org`."""
    admin_token: SecretStr
    """A token with scope `admin`: `make compose-token`, or one of your identity provider."""


class DoctorSettings(BackupSettings):
    """Where everything is. What is not named is not looked at; the services as in the gateway's environment."""

    s3_public_url: HttpAddress | None = None
    """The address of S3 that people get."""
    s3_public_via: str | None = None
    """Who answers at that address, host:port, if it is one of loopback: a container has a loopback of its own."""
    nats_url: str | None = None
    """Where NATS is."""
    nats_user: str = "provision"
    """A user that may ask JetStream about any stream."""
    nats_password: SecretStr | None = None
    """The password of that user."""
    nats_replicas: int = Field(default=1, ge=1, le=5)
    """On how many nodes of NATS each message has to be, as the provisioning has it."""
    jwks_url: HttpAddress | None = None
    """Where the public keys of tokens are."""
    xmpp_host: str | None = None
    """The host of the port for XMPP clients."""
    xmpp_client_port: int = 5222
    """The port for XMPP clients."""
    xmpp_ca_file: Path | None = None
    """The authority that signed the certificate; without it, those of the system."""
    gateway: HttpAddress | None = None
    """The address of the gateway, such as `https://chat.example.org`."""
    session_api: str | None = None
    """The instances of session-api, `host:port` with blanks between."""
    file_api: str | None = None
    """The instances of file-api."""
    message_store: str | None = None
    """The instances of message-store."""
    xmpp_bridge: str | None = None
    """The instances of xmpp-bridge."""

    def services(self) -> dict[str, str | None]:
        """Return the addresses of the services' instances: `host:port`, with blanks between."""
        return {
            "session-api": self.session_api,
            "file-api": self.file_api,
            "message-store": self.message_store,
            "xmpp-bridge": self.xmpp_bridge,
        }
