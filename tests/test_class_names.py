"""A class name means one thing, whichever package a reader comes from."""

import ast
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).parents[1]
SOURCES = [*ROOT.glob("libs/*/src/*"), *ROOT.glob("services/*/src/*")]
ROLES = {"Settings"}
"""The settings of a service have this name in each `settings.py`: tlim_runtime starts every service by it."""


def test_no_two_packages_have_a_class_of_the_same_name() -> None:
    packages: dict[str, set[str]] = defaultdict(set)
    for package in SOURCES:
        for file in package.rglob("*.py"):
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                if isinstance(node, ast.ClassDef):
                    packages[node.name].add(package.name)
    assert {name: where for name, where in packages.items() if len(where) > 1 and name not in ROLES} == {}
