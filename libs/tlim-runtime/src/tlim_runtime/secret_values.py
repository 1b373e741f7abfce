"""Secrets: from a file as well as from the environment, and never one that stands in an example."""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

from pydantic import SecretStr
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource

from tlim_runtime.variables import FILE_SUFFIX, PREFIX

LARGEST_BYTES = 65_536
"""A secret is a line. A larger file is another one."""

_EXAMPLES = frozenset(
    {
        *("admin", "alice", "changeit", "changeme", "default", "demo", "dummy", "example", "fixme", "foobar", "guest"),
        *("letmein", "minioadmin", "none", "null", "pass", "passwd", "password", "placeholder", "postgres", "replace"),
        *("replaceme", "root", "sample", "secret", "sekret", "test", "tlim", "todo", "token", "topsecret", "undefined"),
        *("unset", "user", "verysecret", "yourpassword", "yoursecret"),
    }
)
"""What examples, manuals and images have in the place of a secret, without punctuation, and digits behind a word."""

_ONLY_EXAMPLES = re.compile(rf"(?:(?:{'|'.join(sorted(_EXAMPLES))})\d*)+")
_NAMES = frozenset({"tlimadmin"})
"""Two such words, and yet no example: a key of S3 in our own deployments has this name."""

_UNFILLED = re.compile(r"[<\[{(].*[>\]})]|\$.*|\.+|…|(.)\1*", re.DOTALL)
"""A value that was to be filled in, such as <password>, ${PASSWORD} or …, or one character again and again."""

_LOGIN = re.compile(r"\A[a-z0-9+]+://[^:/@]*(?::(?P<password>[^@]*))?@")


class SecretFileError(ValueError):
    """A file with a secret cannot be used. The words name the variable, and never the content."""


class SecretFiles(PydanticBaseSettingsSource):
    """Reads TLIM_X_FILE for each field X that is a secret."""

    def __init__(self, settings: type[BaseSettings], environment: Mapping[str, str] = os.environ) -> None:
        super().__init__(settings)
        self._environment = {name.upper(): value for name, value in environment.items()}

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        """Return the secret of a field, None if no file is named for it."""
        variable = f"{PREFIX}{field_name}".upper()
        path = self._environment.get(f"{variable}{FILE_SUFFIX}") if is_secret(field) else None
        if path is None:
            return None, field_name, False
        if variable in self._environment:
            raise SecretFileError(f"{variable}: set it or {variable}{FILE_SUFFIX}, not both")
        return _read(f"{variable}{FILE_SUFFIX}", Path(path)), field_name, False

    def __call__(self) -> dict[str, Any]:
        """Return the secrets that come from files; raises SecretFileError with a line for each unusable file."""
        found: dict[str, Any] = {}
        problems: list[str] = []
        for name, field in self.settings_cls.model_fields.items():
            try:
                value, _, _ = self.get_field_value(field, name)
            except SecretFileError as error:
                problems.append(str(error))
            else:
                found |= {} if value is None else {name: value}
        if problems:
            raise SecretFileError("\n".join(problems))
        return found


def is_secret(field: FieldInfo) -> bool:
    """Whether a setting is a secret: a SecretStr, or one that may be missing."""
    return SecretStr in (field.annotation, *get_args(field.annotation))


def problem_of(secret: str) -> str | None:
    """Return why nobody should start with this secret, None if it is good. For a URL it is the password in it."""
    login = _LOGIN.match(secret)
    value = (login["password"] if login else secret) or ""
    if not value.strip():
        return "is empty" if not login else "has no password"
    plain = re.sub(r"[\W_]+", "", value.lower())
    if (_ONLY_EXAMPLES.fullmatch(plain) and plain not in _NAMES) or _UNFILLED.fullmatch(value.strip()):
        return "is an example: generate a secret of your own (`openssl rand -hex 24`)"
    return None


def _read(variable: str, path: Path) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST_BYTES + 1)
    except OSError as error:
        raise SecretFileError(f"{variable}: {path} cannot be read: {error.strerror}") from None
    if len(content) > LARGEST_BYTES:
        raise SecretFileError(f"{variable}: {path} has more than {LARGEST_BYTES} bytes")
    try:
        secret = content.decode().rstrip("\r\n")
    except UnicodeDecodeError:
        raise SecretFileError(f"{variable}: {path} is not UTF-8") from None
    if not secret:
        raise SecretFileError(f"{variable}: {path} is empty")
    return secret
