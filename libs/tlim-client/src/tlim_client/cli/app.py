"""The command line of `tlim`, put together."""

import typer

from tlim_client.cli import account, files, listening, reading, sending, sessions, users
from tlim_client.cli.context import As, doors

app = typer.Typer(
    name="tlim",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.callback()
def tlim(context: typer.Context, *, user: As = None) -> None:
    """Talk over tlim from a terminal.

    Start with `tlim login USER`, then `tlim listen` in one terminal and `tlim send --to SOMEBODY hi` in another.
    """
    doors(context).user = user


app.command()(account.login)
app.command()(account.logout)
app.command()(sending.send)
app.command()(listening.listen)
app.command()(sending.read)
app.command()(sending.recall)
app.command()(reading.history)
app.command()(reading.sync)
app.command()(reading.conversations)
app.command()(reading.search)
app.command()(reading.message)
app.command()(files.download)
app.add_typer(sessions.commands, name="session")
app.add_typer(users.commands, name="users")
