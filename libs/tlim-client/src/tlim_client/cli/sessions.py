"""`tlim session …`: groups of people who talk together."""

from collections.abc import Awaitable, Callable
from typing import Annotated

import typer

from tlim_client.cli.context import As, AsJson, Doors, doors, run
from tlim_client.cli.output import json_line, printable
from tlim_client.http import HttpClient, Json

commands = typer.Typer(no_args_is_help=True, help="Create and edit group sessions.")

SessionId = Annotated[str, typer.Argument(help="The session's id, as `tlim session list` shows it.")]
Users = Annotated[list[str], typer.Argument(help="User ids.")]


@commands.command()
def add(
    context: typer.Context,
    *,
    users: Users,
    session_type: Annotated[int, typer.Option("--type", min=0, help="The session's type, as your clients use it.")] = 1,
    user: As = None,
    as_json: AsJson = False,
) -> None:
    """Create a session with these users and yourself.

    Example: tlim session add bob carol --type 1
    """
    answer = _call(context, user, lambda client: client.add_session(users, session_type))
    _show(answer, as_json=as_json)


@commands.command()
def rename(
    context: typer.Context,
    *,
    session_id: SessionId,
    name: Annotated[str, typer.Argument(help="The new name.")],
    user: As = None,
    as_json: AsJson = False,
) -> None:
    """Give a session another name.

    Example: tlim session rename 1b2c… "Project X"
    """
    _show(_call(context, user, lambda client: client.change_session(session_id, session_name=name)), as_json=as_json)


@commands.command()
def invite(
    context: typer.Context, *, session_id: SessionId, users: Users, user: As = None, as_json: AsJson = False
) -> None:
    """Add users to a session.

    Example: tlim session invite 1b2c… dave
    """
    _show(_call(context, user, lambda client: client.change_session(session_id, add=users)), as_json=as_json)


@commands.command()
def remove(
    context: typer.Context, *, session_id: SessionId, users: Users, user: As = None, as_json: AsJson = False
) -> None:
    """Remove users from a session. Its creator may remove anybody. Other members may remove only themselves.

    Example: tlim session remove 1b2c… dave
    """
    _show(_call(context, user, lambda client: client.change_session(session_id, remove=users)), as_json=as_json)


@commands.command()
def delete(context: typer.Context, *, session_id: SessionId, user: As = None, as_json: AsJson = False) -> None:
    """Delete a session that you created.

    Example: tlim session delete 1b2c…
    """
    answer = _call(context, user, lambda client: client.delete_session(session_id))
    typer.echo(json_line(answer) if as_json else f"{session_id} is deleted.")


@commands.command("list")
def list_(context: typer.Context, *, user: As = None, as_json: AsJson = False) -> None:
    """List the sessions you are in.

    Example: tlim session list
    """
    for session in run(_list(doors(context), user)):
        _show(session, as_json=as_json)


def _call(context: typer.Context, user: str | None, work: Callable[[HttpClient], Awaitable[Json]]) -> Json:
    return run(_signed_in(doors(context), user, work))


async def _signed_in(outside: Doors, user: str | None, work: Callable[[HttpClient], Awaitable[Json]]) -> Json:
    async with outside.signed_in(user) as client:
        return await work(client)


async def _list(outside: Doors, user: str | None) -> list[Json]:
    async with outside.signed_in(user) as client:
        return await client.sessions()


def _show(session: Json, *, as_json: bool) -> None:
    if as_json:
        typer.echo(json_line(session))
        return
    people = ", ".join(session.get("subscribers", []))
    typer.echo(f"{session['session_id']}  {printable(session['session_name'])}{f'  [{people}]' if people else ''}")
    if session.get("unknown_subscribers"):
        typer.echo(f"tlim: unknown, left out: {', '.join(session['unknown_subscribers'])}", err=True)
