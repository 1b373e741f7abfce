"""A class name means one thing, whichever file a reader comes from."""

import ast
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).parents[1]
SOURCES = [*ROOT.glob("libs/*/src"), *ROOT.glob("services/*/src")]
ROLES = {"Settings"}
"""The settings of a service have this name in each `settings.py`: tlim_runtime starts every service by it."""


def test_no_two_classes_have_the_same_name() -> None:
    files: dict[str, list[str]] = defaultdict(list)
    for source in SOURCES:
        for file in source.rglob("*.py"):
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                if isinstance(node, ast.ClassDef):
                    files[node.name].append(str(file.relative_to(ROOT)))
    assert {name: where for name, where in files.items() if len(where) > 1 and name not in ROLES} == {}
