"""A new message type is one new row: nothing else may ask which type a message has, only what it does."""

import ast
from pathlib import Path

from tlim_protocol.registry import AUDIT_TYPES, CLIENT_TYPES, REGISTRY, SESSION_TYPES, Effect, MsgType

REPOSITORY = Path(__file__).parents[3]
BRANCHING = (ast.Compare, ast.Set, ast.Tuple, ast.List, ast.MatchValue)
"""Comparisons with a type, and collections of types that somebody would have to extend."""


def test_every_type_is_sent_by_clients_or_told_of_sessions_or_of_files() -> None:
    assert sorted((*CLIENT_TYPES, *SESSION_TYPES, *AUDIT_TYPES)) == sorted(MsgType)
    assert {row.effect for row in REGISTRY.values()} == set(Effect)
    assert all(row.effect is Effect.RECEIPT for row in REGISTRY.values() if row.says_read)


def test_no_service_branches_on_the_name_of_a_type() -> None:
    sources = [
        path for folder in ("services", "libs/tlim-runtime") for path in REPOSITORY.glob(f"{folder}/**/src/**/*.py")
    ]
    assert len(sources) > 100
    found = [
        f"{path.relative_to(REPOSITORY)}:{node.lineno}"
        for path in sources
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, BRANCHING) and any(_is_type(child) for child in ast.iter_child_nodes(node))
    ]
    assert found == []


def _is_type(node: ast.AST) -> bool:
    return isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "MsgType"
