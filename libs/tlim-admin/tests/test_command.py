"""What holds for every command of tlim-admin."""

from collections.abc import Iterator

import pytest
import typer
from tlim_admin.__main__ import app, tlim_admin
from tlim_runtime.logging import get_logger

SILENT = {"check-secrets", "bucket"}
"""They print nothing when all is well."""


def commands(of: typer.Typer) -> Iterator[tuple[str, list[str]]]:
    """Give the names of all commands, each with its options."""
    group = typer.main.get_command(of)
    for name, command in group.commands.items():  # type: ignore[attr-defined]
        inner = getattr(command, "commands", {name: command})
        for one, leaf in inner.items():
            yield one, [option for parameter in leaf.params for option in parameter.opts]


@pytest.mark.parametrize(("name", "options"), list(commands(app)))
def test_every_command_that_prints_something_prints_one_document_on_demand(name: str, options: list[str]) -> None:
    assert ("--json" in options) is (name not in SILENT)


def test_the_log_of_a_command_is_not_in_what_it_prints(capsys: pytest.CaptureFixture[str]) -> None:
    tlim_admin()

    get_logger("provision").info("provisioned", streams=5)

    printed = capsys.readouterr()
    assert printed.out == ""
    assert "provisioned" in printed.err
