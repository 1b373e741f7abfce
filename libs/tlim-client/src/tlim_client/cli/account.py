"""`tlim login`, `tlim logout`: log a user in, or forget them."""

import os
import sys
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

import typer
from tlim_protocol.identity import normalize_user_id

from tlim_client.cli.context import AsJson, Doors, doors, get_token, run
from tlim_client.cli.output import json_line
from tlim_client.profile import Profile, development_ca

Gateway = Annotated[str, typer.Option(envvar="TLIM_GATEWAY", help="The HTTP gateway.")]
Xmpp = Annotated[str, typer.Option(envvar="TLIM_XMPP", metavar="HOST[:PORT]", help="The XMPP server.")]
Domain = Annotated[str, typer.Option(envvar="TLIM_DOMAIN", help="The XMPP domain: the part of an address after @.")]
Component = Annotated[
    str | None,
    typer.Option(
        envvar="TLIM_COMPONENT",
        metavar="JID",
        help="The bridge's own name, such as bridge.DOMAIN: messages are addressed to it. Only for an XMPP server"
        " without tlim's module (docs/openfire.md).",
    ),
]
CaFile = Annotated[
    Path | None,
    typer.Option(
        envvar="TLIM_CA_FILE",
        exists=True,
        dir_okay=False,
        help="Who vouches for the XMPP server's certificate. Default: the development stack's (in .tlim, here or"
        " in a folder above), else the system's authorities.",
    ),
]
PasswordStdin = Annotated[bool, typer.Option("--password-stdin", help="Read the password from standard input.")]


def login(
    context: typer.Context,
    *,
    user: Annotated[str, typer.Argument(help="Your user id.")],
    gateway: Gateway = "http://localhost:9090",
    xmpp: Xmpp = "localhost:5222",
    domain: Domain = "im.itonglian.com",
    ca_file: CaFile = None,
    component: Component = None,
    password_stdin: PasswordStdin = False,
    as_json: AsJson = False,
) -> None:
    """Log in, and stay logged in, as USER.

    Asks for the password, or takes it from TLIM_PASSWORD or --password-stdin. Password and token are kept in a file
    that only you can read. You can log in as several users: --as or TLIM_PROFILE then names the user of a command.

    Examples:
      tlim login alice

      make demo-users | awk '/^bob / {print $2}' | tlim login bob --password-stdin
    """
    host, port = _host_and_port(xmpp)
    certificate = ca_file or development_ca(Path.cwd())
    run(
        _login(
            doors(context),
            Profile(
                user=user,
                password=_password(user, from_stdin=password_stdin),
                gateway=gateway,
                xmpp_host=host,
                xmpp_port=port,
                domain=domain,
                ca_file=str(certificate.resolve()) if certificate else None,
                component=component,
            ),
        )
    )
    if as_json:
        typer.echo(json_line({"user": user, "gateway": gateway, "domain": domain}))
        return
    typer.echo(f"Logged in as {user}.")
    if len(doors(context).profiles.users()) > 1:
        typer.echo(f"To be {user} in this terminal: export TLIM_PROFILE={user}")


def logout(context: typer.Context, *, user: Annotated[str, typer.Argument(help="Whom to forget.")]) -> None:
    """Forget USER: their password and token are deleted from this machine.

    Example: tlim logout alice
    """
    run(_logout(doors(context), user))
    typer.echo(f"{user} is logged out.")


async def _login(outside: Doors, profile: Profile) -> None:
    normalize_user_id(profile.user)
    async with outside.http(profile.gateway) as client:
        outside.profiles.save(await get_token(client, profile))


async def _logout(outside: Doors, user: str) -> None:
    outside.profiles.remove(user)


def _host_and_port(address: str) -> tuple[str, int]:
    """Read `host`, `host:port` or `[::1]:port`."""
    try:
        parts = urlsplit(f"//{address}")
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if not host or parts.netloc != address:
        raise typer.BadParameter(f"'{address}' is not HOST or HOST:PORT", param_hint="--xmpp")
    return host, 5222 if port is None else port


def _password(user: str, *, from_stdin: bool) -> str:
    if from_stdin:
        return sys.stdin.readline().rstrip("\n")
    if "TLIM_PASSWORD" in os.environ:
        return os.environ["TLIM_PASSWORD"]
    answer: str = typer.prompt(f"Password of {user}", hide_input=True)
    return answer
