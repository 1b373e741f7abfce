"""The logged-in users of a terminal: server addresses, credentials and token of each, in files with mode 0600."""

import json
import os
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Self

from tlim_protocol.errors import TlimError
from tlim_protocol.identity import normalize_user_id

from tlim_client.failures import ProfileError
from tlim_client.xmpp import ServerAddress

DEV_CA = Path(".tlim") / "secrets" / "ca.pem"


@dataclass(frozen=True, slots=True)
class Profile:
    """One logged-in user: the addresses of the servers, the password and the token."""

    user: str
    password: str
    gateway: str
    xmpp_host: str
    xmpp_port: int
    domain: str
    ca_file: str | None
    component: str | None = None
    token: str | None = None
    token_ends: float = 0  # seconds since the epoch

    @property
    def server(self) -> ServerAddress:
        """The XMPP server to connect to."""
        authority = Path(self.ca_file) if self.ca_file else None
        return ServerAddress(self.xmpp_host, self.xmpp_port, self.domain, authority, self.component)

    def with_token(self, token: str, lifetime: float) -> Self:
        """Return the profile with a new token that is good for `lifetime` seconds from now."""
        return replace(self, token=token, token_ends=time.time() + lifetime)

    @property
    def fresh_token(self) -> str | None:
        """The token, if it is valid for at least another minute."""
        return self.token if self.token_ends > time.time() + 60 else None


class Profiles:
    """The profiles of this person: one JSON file (mode 0600) per user below `folder`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @classmethod
    def of_environment(cls, environment: Mapping[str, str] = os.environ) -> Self:
        """Return the profiles below `$XDG_CONFIG_HOME/tlim`, by default `~/.config/tlim`."""
        base = environment.get("XDG_CONFIG_HOME") or str(Path.home() / ".config")
        return cls(Path(base) / "tlim" / "profiles")

    def users(self) -> list[str]:
        """Return the names of the logged-in users, sorted."""
        return sorted(path.stem for path in self._folder.glob("*.json"))

    def load(self, user: str | None) -> Profile:
        """Return the profile of `user`, or the only one there is. Raises ProfileError when that is not clear."""
        known = self.users()
        if user is None:
            if not known:
                raise ProfileError("nobody is logged in: run `tlim login USER` first")
            if len(known) > 1:
                names = ", ".join(known)
                raise ProfileError(f"several users are logged in ({names}): say --as {known[0]}, or set TLIM_PROFILE")
            user = known[0]
        path = self._path(user)
        try:
            return Profile(**json.loads(path.read_text()))
        except FileNotFoundError:
            raise ProfileError(f"{user} is not logged in: run `tlim login {user}` first") from None
        except (ValueError, TypeError) as error:
            raise ProfileError(f"{path} is damaged ({error}): run `tlim login {user}` again") from error

    def save(self, profile: Profile) -> None:
        """Write a profile. At no moment can anybody else read it."""
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        path = self._path(profile.user)
        draft = path.with_suffix(".tmp")
        draft.unlink(missing_ok=True)
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as out:
            json.dump(asdict(profile), out, indent=1)
        draft.replace(path)

    def remove(self, user: str) -> None:
        """Forget a user. Raises ProfileError when they are not logged in."""
        try:
            self._path(user).unlink()
        except FileNotFoundError:
            raise ProfileError(f"{user} is not logged in") from None

    def _path(self, user: str) -> Path:
        try:
            return self._folder / f"{normalize_user_id(user)}.json"
        except TlimError as error:
            raise ProfileError(error.detail) from error


def development_ca(start: Path) -> Path | None:
    """Return the CA file of the development stack that runs in `start` or a folder above it, or None."""
    return next((folder / DEV_CA for folder in (start, *start.parents) if (folder / DEV_CA).is_file()), None)
