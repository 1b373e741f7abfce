"""The settings of session-api, from the environment."""

from typing import ClassVar, Self

from pydantic import Field, SecretStr, model_validator
from tlim_runtime.settings import DatabaseSettings, ServiceSettings
from tlim_runtime.throttle import Rate


class Settings(DatabaseSettings, ServiceSettings):
    """The settings of this service: those every service has, and the limits of its own rules."""

    service: ClassVar[str] = "session-api"

    session_max_subscribers: int = Field(default=10_000, ge=1)
    """The most people in a session. Every change sends the whole list as one event, which has up to 7.8 MB for 10,000
    people. The service does not start when that exceeds the broker's max_payload."""

    session_changes_per_user: Rate = "20000/minute"
    """How many people may hear of one user's changes of sessions. To make or rename a group of 10,000 counts as 10,000,
    because each of them gets a notice."""

    xmpp_admin_url: str | None = None
    """Where ejabberd's mod_http_api is mounted (`http://127.0.0.1:5281/api`); None: accounts are made elsewhere, by
    LDAP or SQL, and imports with passwords are refused."""

    xmpp_domain: str = "im.itonglian.com"
    """The domain of the accounts."""
    xmpp_admin_user: str | None = None
    """The full JID of an account that may register others, unless there is a token."""
    xmpp_admin_password: SecretStr | None = None
    """Its password."""
    xmpp_admin_token: SecretStr | None = None  # instead of both: api_secret of our ejabberd, or an OAuth token

    @model_validator(mode="after")
    def _credentials(self) -> Self:
        has_login = self.xmpp_admin_user is not None and self.xmpp_admin_password is not None
        if self.xmpp_admin_url is not None and self.xmpp_admin_token is None and not has_login:
            raise ValueError("xmpp_admin_url needs xmpp_admin_token, or xmpp_admin_user with xmpp_admin_password")
        return self
