"""What every service is told by its environment: typed, prefixed with TLIM_, no default for a secret."""

import os
import re
import sys
from collections.abc import Iterator
from datetime import timedelta
from enum import Enum
from types import UnionType
from typing import Annotated, ClassVar, Literal, Self, TypeVar, Union, cast, get_args, get_origin
from urllib.parse import quote

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    HttpUrl,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, SettingsError

from tlim_runtime.secret_values import SecretFileError, SecretFiles, is_secret, problem_of
from tlim_runtime.variables import FILE_SUFFIX, PREFIX, mistyped, mistyped_line

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
    """Settings read from environment variables that start with TLIM_ (lists as JSON), secrets also from files."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, extra="ignore", frozen=True)

    @classmethod
    def settings_customise_sources(  # pydantic calls it
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Read the environment, and the files that it names for secrets."""
        del dotenv_settings, file_secret_settings
        return init_settings, env_settings, SecretFiles(settings_cls)

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
    """Where the public keys of tokens are: `/.well-known/jwks.json` of xmpp-bridge."""
    audience: str = Field(min_length=1)
    user_claim: str = Field(default="sub", min_length=1)
    admin_scope: str | None = Field(default=None, pattern=r"^\S+$")
    algorithms: list[Literal["RS256", "ES256", "EdDSA"]] = Field(default=["RS256"], min_length=1)


class ServiceSettings(EnvironmentSettings):
    """What a process needs to listen, log, reach NATS and check tokens; `service` is its name everywhere."""

    service: ClassVar[str] = "tlim"

    host: str = "127.0.0.1"
    """The address on which the process listens."""
    port: int = Field(ge=0, le=65_535)
    """The port on which the process listens."""
    log_level: str = "INFO"
    """DEBUG, INFO, WARNING or ERROR. Logs go to stdout, one JSON object a line."""
    nats_url: str
    """Where NATS is: `nats://host:port`, or `tls://host:port`; several with commas between."""
    nats_user: str
    """The service's own user of NATS, which has its name."""
    nats_password: SecretStr
    """The password of that user."""
    jwks_url: str
    """Where the public keys of tokens are: `/.well-known/jwks.json` of xmpp-bridge."""
    token_issuer: str = Field(default="tlim")
    """The `iss` of our tokens; the same for all services."""
    token_audience: str = Field(default="tlim")
    """The `aud` of our tokens; the same for all services."""
    external_issuers: list[ExternalIssuer] = []
    """Identity providers whose tokens count as well, as a JSON list."""
    cors_origins: list[str] = []
    """The origins of web pages that may call the services; `*` means all."""
    trust_request_user: bool = False
    """Whether the specification's addresses take the user from the request. Anybody could be anybody then."""
    requests_at_once_per_user: int = Field(default=4, ge=1)  # less than half of the pool of connections
    shutdown_grace: timedelta = timedelta(seconds=10)  # containers are killed after 45 s, processes after 30 s
    traces_url: HttpUrl | None = None
    """Where traces go, with OTLP over HTTP: such as `http://collector:4318/v1/traces`. Without it there are none."""
    traces_authorization: SecretStr | None = None
    """The `Authorization` header for that address, such as `Bearer …`."""
    traces_share: float = Field(default=1.0, ge=0, le=1)
    """The share of traces that is kept, from 0 to 1."""

    @model_validator(mode="after")
    def _one_of_each_issuer(self) -> Self:
        names = [self.token_issuer, *(one.issuer for one in self.external_issuers)]
        if len(set(names)) < len(names):
            raise ValueError("external_issuers: each issuer once, and not our own (token_issuer)")
        return self


_DATABASE_URL = re.compile(r"postgres(?:ql)?(?:\+asyncpg)?://(?P<user>[^:/@]+)(?P<password>:[^@]*)?@(?P<where>.+)")


class DatabaseLogin(EnvironmentSettings):
    """A role in a database. `database_url` is `postgresql+asyncpg://role:password@host:port/name`.

    The password can stand apart from the URL, in `database_password`. Then `database_url` gets it here.
    """

    database_password: SecretStr | None = None
    """The password of the role, if it does not stand in the URL."""
    database_url: SecretStr
    """The service's database and role: `postgresql://role@host:port/name`, with `?sslmode=require` for TLS."""

    @field_validator("database_url")
    @classmethod
    def _complete(cls, url: SecretStr, info: ValidationInfo) -> SecretStr:
        password: SecretStr | None = info.data.get("database_password")
        parts = _DATABASE_URL.fullmatch(url.get_secret_value())
        if parts is None:
            raise ValueError("must be postgresql+asyncpg://role:password@host:port/name")
        if password is not None and parts["password"] is not None:
            raise ValueError("has a password, and TLIM_DATABASE_PASSWORD is another: set one of them")
        where = re.sub(r"(?<=[?&])sslmode=", "ssl=", parts["where"])  # libpq's name, and SQLAlchemy's for asyncpg
        given = parts["password"] or "" if password is None else f":{quote(password.get_secret_value(), safe='')}"
        return SecretStr(f"postgresql+asyncpg://{parts['user']}{given}@{where}")


class DatabaseSettings(DatabaseLogin):
    """The settings of a service with a database."""

    database_pool_size: int = Field(default=10, ge=1)  # four services stay far below PostgreSQL's default of 100


SettingsT = TypeVar("SettingsT", bound=EnvironmentSettings)


def load_settings(settings_type: type[SettingsT]) -> SettingsT:
    """Read settings from the environment; exit 1 after one clear line on stderr for each variable that is wrong.

    Wrong are a missing or unreadable variable, a TLIM_ name that no part of the system reads, and a secret that stands
    in an example. No line holds a value.
    """
    problems = [mistyped_line(*pair) for pair in mistyped(os.environ, variables_of(settings_type)).items()]
    try:
        settings = settings_type()
    except ValidationError as error:
        for problem in error.errors(include_input=False, include_url=False):
            name = "_".join(str(part) for part in problem["loc"])
            problems.append((f"{PREFIX}{name}".upper() + ": " if name else "") + problem["msg"])
    except SettingsError as error:  # a list that is not JSON; pydantic names its field in quotes
        problems.append(re.sub(r'.*"(\w+)" from source.*', lambda found: _not_json(found[1]), str(error)))
    except SecretFileError as error:
        problems.append(str(error))
    else:
        problems += _unusable(settings)
    if not problems:
        return settings
    sys.stderr.write("".join(f"{line}\n" for line in problems))
    raise SystemExit(1)


def variables_of(settings_type: type[EnvironmentSettings]) -> set[str]:
    """Return the names of the variables that these settings come from."""
    fields = settings_type.model_fields.items()
    names = {name for name, _ in fields} | {f"{name}{FILE_SUFFIX}" for name, field in fields if is_secret(field)}
    return {f"{PREFIX}{name}".upper() for name in names}


def _not_json(name: str) -> str:
    return f"{PREFIX}{name}".upper() + ": must be JSON"


def _unusable(settings: EnvironmentSettings) -> Iterator[str]:
    for name, value in settings:
        problem = problem_of(value.get_secret_value()) if isinstance(value, SecretStr) else None
        if problem is not None:
            yield f"{PREFIX}{name}".upper() + f": {problem}"


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
