"""What all commands share: their options, the user they act for, the ways to the servers, and their errors."""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Annotated, Any, TypeVar

import httpx
import typer
from tlim_protocol.errors import TlimError

from tlim_client.failures import ClientError
from tlim_client.http import HttpClient
from tlim_client.profile import Profile, Profiles
from tlim_client.xmpp import XmppClient

T = TypeVar("T")

As = Annotated[
    str | None,
    typer.Option("--as", metavar="USER", envvar="TLIM_PROFILE", help="Which logged-in user to be."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON (one object per line where there are several).")]


class Doors:
    """The ways from a command to profiles and servers. Tests put fakes in their place."""

    def __init__(self) -> None:
        self.profiles = Profiles.of_environment()
        self.user: str | None = None

    def profile(self, user: str | None) -> Profile:
        """Return the profile of `user`. Without one, return that of `tlim --as`, or else the only profile there is."""
        return self.profiles.load(user or self.user)

    def http(self, gateway: str, token: str | None = None) -> HttpClient:
        """Return a client for the gateway at that URL."""
        return HttpClient(gateway, token=token)

    def xmpp(self, profile: Profile) -> XmppClient:
        """Return a client, not yet connected, for the profile's XMPP server."""
        return XmppClient(profile.server, profile.user, profile.password)

    @asynccontextmanager
    async def signed_in(self, user: str | None) -> AsyncIterator[HttpClient]:
        """Give a client with a valid token. When the old token has ended, a new one is fetched and kept."""
        profile = self.profile(user)
        async with self.http(profile.gateway, profile.fresh_token) as client:
            if client.token is None:
                self.profiles.save(await get_token(client, profile))
            yield client


def doors(context: typer.Context) -> Doors:
    """Return the doors of this run of the command."""
    return context.ensure_object(Doors)


async def get_token(client: HttpClient, profile: Profile) -> Profile:
    """Return the profile with a new token, fetched with the profile's password."""
    answer = await client.log_in(profile.user, profile.password)
    return profile.with_token(answer["access_token"], float(answer.get("expires_in", 0)))


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run a command's work. Every expected failure ends with one line on stderr and exit code 1."""
    try:
        return asyncio.run(work)
    except (ClientError, TlimError, httpx.HTTPError, OSError) as error:
        reason = str(error) or type(error).__name__
    except (LookupError, ValueError) as error:
        reason = f"the server's answer is not understood ({type(error).__name__}: {error})"
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
    typer.echo(f"tlim: {' '.join(reason.split())}", err=True)
    raise typer.Exit(1)
