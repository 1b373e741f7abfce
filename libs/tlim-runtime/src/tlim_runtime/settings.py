"""What every service is told by its environment: typed, prefixed with TLIM_, no default for a secret."""

import sys
from datetime import timedelta
from enum import Enum
from types import UnionType
from typing import Annotated, ClassVar, Literal, Self, TypeVar, Union, cast, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, HttpUrl, SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

_PLACEHOLDERS: dict[object, object] = {
    str: "unset",
    int: 1,
    float: 1.0,
    bool: False,
    timedelta: timedelta(seconds=1),
    SecretStr: SecretStr("unset"),
    HttpUrl: HttpUrl("http://unset.invalid"),
}


class EnvironmentSettings(BaseSettings):
    """Settings read from environment variables that start with TLIM_ (lists as JSON)."""

    model_config = SettingsConfigDict(env_prefix="TLIM_", extra="ignore", frozen=True)

    @classmethod
    def placeholder(cls) -> Self:
        """Return settings with a harmless value in every required field, ignoring the environment.

        For building an application that is only described (OpenAPI) and never started.
        """
        values = {
            name: _placeholder(field.annotation)
            if field.is_required()
            else field.get_default(call_default_factory=True)
            for name, field in cls.model_fields.items()
        }
        return cast("Self", cls.model_construct(None, **values))


class ExternalIssuer(BaseModel):
    """Another issuer whose tokens count, such as an OIDC provider. TLIM_EXTERNAL_ISSUERS is a JSON list of these.

    The issuer can name any user here: the claim `user_claim` holds the user id. Its lower case must be the normal form
    of a user id. A token with `admin_scope` in its `scope` has our scope `admin`. The issuer's other scopes do not
    count.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    issuer: str = Field(min_length=1)
    jwks_url: HttpUrl
    audience: str = Field(min_length=1)
    user_claim: str = Field(default="sub", min_length=1)
    admin_scope: str | None = Field(default=None, pattern=r"^\S+$")
    algorithms: list[Literal["RS256", "ES256", "EdDSA"]] = Field(default=["RS256"], min_length=1)


class ServiceSettings(EnvironmentSettings):
    """What a process needs to listen, log, reach NATS and check tokens; `service` is its name everywhere."""

    service: ClassVar[str] = "tlim"

    host: str = "127.0.0.1"
    port: int = Field(ge=0, le=65_535)
    log_level: str = "INFO"
    nats_url: str
    nats_user: str
    nats_password: SecretStr
    jwks_url: str
    token_issuer: str = Field(default="tlim")
    token_audience: str = Field(default="tlim")
    external_issuers: list[ExternalIssuer] = []
    cors_origins: list[str] = []
    trust_request_user: bool = False
    requests_at_once_per_user: int = Field(default=4, ge=1)  # less than half of the pool of connections
    shutdown_grace: timedelta = timedelta(seconds=10)  # Kubernetes and the supervisor kill after 30 s

    @model_validator(mode="after")
    def _one_of_each_issuer(self) -> Self:
        names = [self.token_issuer, *(one.issuer for one in self.external_issuers)]
        if len(set(names)) < len(names):
            raise ValueError("external_issuers: each issuer once, and not our own (token_issuer)")
        return self


class DatabaseSettings(EnvironmentSettings):
    """The settings of a service with a database; its URL is `postgresql+asyncpg://role:password@host:port/name`."""

    database_url: SecretStr
    database_pool_size: int = Field(default=10, ge=1)  # four services stay far below PostgreSQL's default of 100


SettingsT = TypeVar("SettingsT", bound=BaseSettings)


def load_settings(settings_type: type[SettingsT]) -> SettingsT:
    """Read settings from the environment. A missing or wrong variable gives one clear line on stderr, and exit 1."""
    try:
        return settings_type()
    except ValidationError as error:
        prefix = settings_type.model_config.get("env_prefix", "")
        for problem in error.errors(include_input=False, include_url=False):
            name = "_".join(str(part) for part in problem["loc"])
            sys.stderr.write(f"{prefix}{name}".upper() + f": {problem['msg']}\n")
        raise SystemExit(1) from None


def _placeholder(annotation: object) -> object:
    origin = get_origin(annotation)
    if origin is Annotated:
        return _placeholder(get_args(annotation)[0])
    if origin in (Union, UnionType):
        return None if type(None) in get_args(annotation) else _placeholder(get_args(annotation)[0])
    if origin is not None:
        return origin()
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return next(iter(annotation))
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation.model_construct()
    return _PLACEHOLDERS.get(annotation, "unset")
