"""A list of values is one parameter of a statement: with one for each value, each length would be another statement.

asyncpg prepares each statement once for a connection, and PostgreSQL keeps it there.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
SOURCES = [*ROOT.glob("libs/*/src"), *ROOT.glob("services/*/src")]


def calls_of_in(file: Path) -> Iterator[ast.Call]:
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "in_":
            yield node


def has_one_length(call: ast.Call) -> bool:
    """Whether it asks for values that stand in the code, or for rows of a sub-select, which have several columns."""
    assert isinstance(call.func, ast.Attribute)
    column = call.func.value
    is_of_rows = isinstance(column, ast.Call) and ast.unparse(column.func) == "sa.tuple_"
    return is_of_rows or isinstance(call.args[0], ast.List)


def test_no_statement_has_a_parameter_for_each_value_of_a_list() -> None:
    found = {
        f"{file.relative_to(ROOT)}:{call.lineno}"
        for source in SOURCES
        for file in source.rglob("*.py")
        for call in calls_of_in(file)
        if not has_one_length(call)
    }
    assert found == set(), "compare with tlim_runtime.tables.any_of(values)"
