"""What a command prints when it is done: a sentence, or with `--json` one document."""

import json
from collections.abc import Mapping
from typing import Annotated

import typer

AsJson = Annotated[bool, typer.Option("--json", help="print one JSON document")]


def say(document: Mapping[str, object], sentence: str, *, as_json: bool) -> None:
    """Print the document if that is wanted, else the sentence."""
    typer.echo(json.dumps(document, ensure_ascii=False) if as_json else sentence)
