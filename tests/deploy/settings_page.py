"""docs/settings.md: every TLIM_ variable, from the settings classes and what stands beside their fields. What is set
outside of the services is in settings_outside.py.

`python -m tests.deploy.settings_page [--check]`, run in the repository's root, writes the page, or compares it.
"""

import ast
import inspect
import io
import re
import sys
import tokenize
from collections import defaultdict
from datetime import timedelta
from functools import cache
from typing import NamedTuple

from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings
from tlim_admin.settings import BucketSettings, DoctorSettings, OperationsSettings, ReplaySettings
from tlim_runtime.provision import ProvisionSettings
from tlim_runtime.secret_values import is_secret

from tests.deploy.images import ROOT
from tests.deploy.settings_outside import CONTAINERS, GATEWAY, lines_of
from tests.deploy.told import SERVICES, SETTINGS

PAGE = ROOT / "docs" / "settings.md"
COMMANDS: dict[str, type[BaseSettings]] = {
    "provision": ProvisionSettings,
    "bucket": BucketSettings,
    "tlim-admin": DoctorSettings,
    "replay": ReplaySettings,
    "trace, redrive": OperationsSettings,
}
"""What runs now and then: name in the table → its settings."""

HEADER = """# Settings

Generated from the settings classes by `make docs`. A duration is written as in ISO 8601 (`PT30S`, `P365D`),
a list as JSON, a rate as `120/minute`. A mistyped name that begins with `TLIM_` stops the start.

In compose they stand in the file `.env`; one that has no effect there stops the start. In Kubernetes the overlay adds
them ([deploy/k8s](../deploy/k8s/README.md#another-setting)). What `make run` reads besides is in
[tlim-devstack](../libs/tlim-devstack/README.md), and what the command `tlim` reads is in its `--help`.

Those marked with a key are secrets: instead of the value, `TLIM_NAME_FILE` can name a file that holds it.
"""


class Row(NamedTuple):
    """A variable of one service."""

    default: str
    meaning: str
    secret: bool


def rows_of(settings: type[BaseSettings]) -> dict[str, Row]:
    """Return the variables of a settings class, by name."""
    return {
        name.upper(): Row(_default(field), _meaning(settings, name), is_secret(field))
        for name, field in settings.model_fields.items()
    }


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "**needed**"
    value = field.get_default(call_default_factory=True)
    if value is None:
        return ""
    if isinstance(value, timedelta):
        return f"`{_iso(value)}`"
    if isinstance(value, list):
        return "`[]`" if not value else "`" + str(value).replace("'", '"') + "`"
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def _iso(value: timedelta) -> str:
    seconds = value.total_seconds()
    for unit, length in (("H", 3600), ("M", 60)):
        if seconds >= length and seconds % length == 0:
            return f"PT{seconds / length:g}{unit}"
    return f"PT{seconds:g}S"


def _meaning(settings: type[BaseSettings], name: str) -> str:
    """Return what stands beside a field, in the class itself or the nearest that tells more."""
    owners = [owner for owner in settings.__mro__ if name in inspect.get_annotations(owner)]
    return next(filter(None, (_notes(owner).get(name) for owner in owners)), "")


@cache
def _notes(owner: type) -> dict[str, str]:
    """Return what stands beside the fields of a class: the string below, else the comment at the end of the line."""
    source = inspect.cleandoc("\n" + inspect.getsource(owner))
    comments = {
        token.start[0]: token.string.lstrip("# ")
        for token in tokenize.generate_tokens(io.StringIO(source).readline)
        if token.type == tokenize.COMMENT
    }
    body = ast.parse(source).body[0]
    assert isinstance(body, ast.ClassDef)
    notes = {}
    for node, following in zip(body.body, [*body.body[1:], None], strict=True):
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            text = ""
            if isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant):
                text = str(following.value.value)
            elif node.end_lineno in comments:
                text = comments[node.end_lineno]
            notes[node.target.id] = re.sub(r"\s+", " ", text).strip().replace("|", "\\|")
    return notes


def page() -> str:
    """Return the page."""
    found: dict[str, dict[str, Row]] = defaultdict(dict)
    for who, settings in {**{name: SETTINGS[name] for name in SERVICES}, **COMMANDS}.items():
        for name, row in rows_of(settings).items():
            found[name][who] = row
    common = {name for name, users in found.items() if users.keys() >= set(SERVICES)}
    lines = [HEADER, "## Every service", "", *_table({name: found[name] for name in common}, SERVICES[0])]
    for who in (*SERVICES, *COMMANDS):
        own = {name: users for name, users in found.items() if who in users and name not in common}
        if own:
            lines += ["", f"## {who}", "", *_table(own, who)]
    return "\n".join([*lines, *lines_of(GATEWAY), *lines_of(CONTAINERS)]) + "\n"


def _table(found: dict[str, dict[str, Row]], who: str) -> list[str]:
    rows = [(name, users[who]) for name, users in sorted(found.items())]
    return [
        "| name | default | meaning |",
        "|---|---|---|",
        *(f"| `TLIM_{name}`{' 🔑' if row.secret else ''} | {row.default} | {row.meaning} |" for name, row in rows),
    ]


def main() -> None:
    """Write the page, or with --check compare it."""
    if "--check" not in sys.argv:
        PAGE.write_text(page(), encoding="utf-8")
    elif not PAGE.exists() or PAGE.read_text(encoding="utf-8") != page():
        sys.stderr.write(f"{PAGE.name} is not what the settings say: run `make docs`\n")
        raise SystemExit(1)


if __name__ == "__main__":
    main()
