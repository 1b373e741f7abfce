"""Which story proves which row of the specification: docs/proofs.md, written from the marks of the stories.

A story names its rows: `@pytest.mark.proves(MsgType.TEXT, ErrorCode.BODY_EMPTY, "POST /v1/sessions", "promise order")`.
`python -m tests.e2e.proofs [--check]`, run in the repository's root, writes the page, or compares it. Either way a row
without a story and a mark that names no row are errors.
"""

import io
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import NamedTuple

import pytest
from tlim_protocol.envelope import Envelope
from tlim_protocol.errors import ERRORS
from tlim_protocol.registry import REGISTRY

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "proofs.md"
STORIES = "tests/e2e"
ALIASES = {"/plugin/": "/plugins/"}
"""What the specification's addresses begin with, and the other beginning, which stands in no OpenAPI document."""
XMPP_DOORS = {
    "xmpp diverted": "a message to its receiver, which the XMPP server hands to the bridge",
    "xmpp addressed": "a message to `userId@bridge.DOMAIN`, as with servers without our module",
    "xmpp token": "an IQ `<token/>` to the bridge",
}
PROMISES = {
    "promise stored": "stored before delivered",
    "promise once": "stored once, however often it is sent",
    "promise order": "delivered at least once, in the order of `seq` in a conversation",
    "promise missed": "what came while somebody was away comes over XMPP when they come",
    "promise kept": "nothing acknowledged is lost when a process is killed",
    "promise late": "a reader who asks after a `seq` skips nothing that commits late",
}


class Table(NamedTuple):
    """One table of the specification: its title, and each row's key with its meaning."""

    title: str
    rows: Mapping[str, str]


class Story(NamedTuple):
    """A test: the file below tests/e2e and the function."""

    file: str
    name: str

    @property
    def link(self) -> str:
        """The story as a sentence, linked to its file."""
        return f"[{self.name.removeprefix('test_').replace('_', ' ')}](../{STORIES}/{self.file})"


def tables() -> list[Table]:
    """Return the tables, read from the code: registries, the envelope's model, the OpenAPI documents."""
    fields = {f"field {field.alias or name}": "" for name, field in Envelope.model_fields.items()}
    return [
        Table("Message types", {kind.value: row.title for kind, row in REGISTRY.items()}),
        Table("Fields of the envelope", fields),
        Table("Error codes", {code.value: entry.meaning for code, entry in ERRORS.items()}),
        Table("HTTP endpoints", dict(_endpoints())),
        Table("XMPP doors", XMPP_DOORS),
        Table("Promises", PROMISES),
    ]


def _endpoints() -> Iterator[tuple[str, str]]:
    for document in sorted(ROOT.glob("services/*/openapi.json")):
        for path, operations in json.loads(document.read_text(encoding="utf-8"))["paths"].items():
            for address in (path, *(path.replace(*alias) for alias in ALIASES.items() if path.startswith(alias[0]))):
                for method in operations:
                    yield f"{method.upper()} {address}", document.parent.name


class Marks:
    """A pytest plugin that collects the marks of all stories: row → its stories."""

    def __init__(self) -> None:
        self.stories: dict[str, dict[Story, None]] = {}

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Read the marks of the collected tests, in order; a story that runs several times counts once."""
        for item in session.items:
            story = Story(item.path.relative_to(ROOT / STORIES).as_posix(), getattr(item, "originalname", item.name))
            for mark in item.iter_markers("proves"):
                for row in mark.args:
                    self.stories.setdefault(str(row), {})[story] = None


def collect() -> Mapping[str, Sequence[Story]]:
    """Return the stories of each row that has any; RuntimeError, with what pytest printed, when it cannot collect."""
    marks, printed = Marks(), io.StringIO()
    with redirect_stdout(printed):
        status = pytest.main(["--collect-only", "-qq", "-p", "no:cacheprovider", str(ROOT / STORIES)], plugins=[marks])
    if status != pytest.ExitCode.OK:
        raise RuntimeError(printed.getvalue())
    return {row: sorted(stories) for row, stories in marks.stories.items()}


def faults(stories: Mapping[str, Sequence[Story]]) -> list[str]:
    """Return a sentence for every row without a story, and for every mark that names no row."""
    rows = [row for table in tables() for row in table.rows]
    unproven = [f"{row}: no story in {STORIES} says @pytest.mark.proves(…)" for row in rows if row not in stories]
    unknown = [
        f"{story.file}::{story.name} proves {row!r}, which is no row of the specification"
        for row in stories
        if row not in rows
        for story in stories[row]
    ]
    return unproven + unknown


def render(stories: Mapping[str, Sequence[Story]]) -> str:
    """Return the page."""
    lines = [
        "# What proves the specification",
        "",
        f"Every row of the specification with the stories in `{STORIES}` that prove it; CI runs them all. Generated by",
        "`make proofs` from the marks of the tests; do not edit.",
    ]
    for table in tables():
        lines += ["", f"## {table.title}", "", "| row | proved by |", "|---|---|"]
        for row, meaning in table.rows.items():
            proofs = "<br>".join(story.link for story in stories.get(row, ())) or "—"
            lines.append(f"| {f'`{row}` {meaning}'.rstrip()} | {proofs} |")
    return "\n".join([*lines, ""])


def main(arguments: list[str]) -> int:
    """Write the page, or with `--check` compare it; return 1 for any fault or difference."""
    stories = collect()
    page, wrong = render(stories), faults(stories)
    if "--check" not in arguments:
        PAGE.write_text(page, encoding="utf-8")
    elif not PAGE.is_file() or PAGE.read_text(encoding="utf-8") != page:
        wrong.append(f"{PAGE.relative_to(ROOT)} is not what the stories say: run `make proofs`")
    sys.stderr.write("".join(f"{fault}\n" for fault in wrong))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
