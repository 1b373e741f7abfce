"""The commands `trace` and `redrive`."""

import json
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Annotated, Any

import typer
from tlim_runtime.settings import load_settings

from tlim_admin.backup.manifest import BackupError
from tlim_admin.failures import one_line
from tlim_admin.operations.api import LetterRefusedError, Operations
from tlim_admin.printed import AsJson
from tlim_admin.progress import steps
from tlim_admin.settings import OperationsSettings


def trace_command(
    msg_id: Annotated[str, typer.Argument(help="the msg_id of the message")], as_json: AsJson = False
) -> None:
    """Show the way of a message through the services, with times. Exits with 1 if nobody knows it."""
    with one_line(), steps() as shown, shown.step("asking"):
        found = _operations().message(msg_id)
    if as_json:
        typer.echo(json.dumps(found, ensure_ascii=False))
    else:
        for row in found["rows"]:
            typer.echo("in the log: " + ", ".join(f"{name} {value}" for name, value in row.items()))
        for step in found["steps"]:
            typer.echo(_line(step))
    if not found["rows"] and not found["steps"]:
        typer.echo(f"nobody knows a message with the msg_id {msg_id}", err=True)
        raise typer.Exit(1)


def redrive_command(
    seqs: Annotated[list[int] | None, typer.Argument(help="of dead letters; without any they are listed")] = None,
    everything: Annotated[bool, typer.Option("--all", help="all that are there")] = False,
    as_json: AsJson = False,
) -> None:
    """List the messages that nobody could process, or publish them again. Mend the cause first: the log names it."""
    with one_line(), steps() as shown:
        operations = _operations()
        letters = list(operations.dead_letters()) if everything or not seqs else []
        chosen = seqs or ([letter["seq"] for letter in letters] if everything else [])
        redriven, failed = _redrive(operations, shown.each("publishing again", sorted(chosen), len(chosen)))
    if as_json:
        refused = [{"seq": seq, "reason": reason} for seq, reason in failed.items()]
        document = {"dead_letters": letters, "redriven": redriven, "failed": refused}
        typer.echo(json.dumps(document, ensure_ascii=False))
    elif chosen:
        typer.echo(f"published again: {len(redriven)}")
        for seq, reason in failed.items():
            typer.echo(f"failed: {seq}: {reason}")
    else:
        for letter in letters:
            typer.echo(f"{letter['seq']}  {_time(letter['at'])}  {letter['subject']}  {letter['reason']}")
        typer.echo(f"dead letters: {len(letters)}")
    if failed:
        raise typer.Exit(1)


def _redrive(operations: Operations, seqs: Iterable[int]) -> tuple[list[int], dict[int, str]]:
    """Publish all that can be; return which were, and why others were not.

    The first failure that would meet all of them, such as a token that has ended, is the last attempt.
    """
    redriven, failed = [], {}
    for seq in seqs:
        try:
            operations.redrive(seq)
        except (BackupError, OSError) as error:
            failed[seq] = str(error)
            if not isinstance(error, LetterRefusedError):
                break
        else:
            redriven.append(seq)
    return redriven, failed


def _operations() -> Operations:
    settings = load_settings(OperationsSettings)
    return Operations(settings.gateway, settings.admin_token.get_secret_value())


def _line(step: dict[str, Any]) -> str:
    where = f"{step['service']} {step.get('instance') or ''}".strip()
    return f"{_time(step['at'])}  {where}: {step['step']} {step.get('detail') or ''}".rstrip()


def _time(milliseconds: int) -> str:
    return f"{datetime.fromtimestamp(milliseconds / 1000, UTC):%Y-%m-%d %H:%M:%S.%f}"[:-3]
