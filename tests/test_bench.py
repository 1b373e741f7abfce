"""The rules of `make bench` that need no servers. `make bench-check` runs the benches themselves."""

import math
from functools import partial
from pathlib import Path

from bench.bare import Statement, renewed, scalar, statements_in
from bench.comparing import Figure, Section, interleaved, ratio
from bench.page import put

LOG = """
2026-11-29 04:00:00.001 UTC [22] LOG:  execute s1: SELECT 1 FROM other WHERE id = $1
2026-11-29 04:00:00.001 UTC [22] DETAIL:  parameters: $1 = 'nobody'
2026-11-29 04:00:00.002 UTC [11] LOG:  statement: BEGIN;
2026-11-29 04:00:00.002 UTC [11] LOG:  execute s3: WITH RECURSIVE typeinfo_tree(oid) AS (SELECT 1)
2026-11-29 04:00:00.002 UTC [11] DETAIL:  parameters: $1 = '{1016}'
2026-11-29 04:00:00.003 UTC [11] LOG:  execute s2: SELECT a
\tFROM b WHERE c = $1 AND d = $2 AND e = $3
2026-11-29 04:00:00.003 UTC [11] DETAIL:  parameters: $1 = 'it''s alice', $2 = NULL, $3 = '7'
2026-11-29 04:00:00.004 UTC [11] LOG:  statement: COMMIT;
2026-11-29 04:00:00.005 UTC [22] LOG:  execute s1: SELECT 1 FROM other WHERE id = $1
2026-11-29 04:00:00.005 UTC [22] DETAIL:  parameters: $1 = 'what alice caused'
"""


def test_each_round_begins_with_another_system() -> None:
    order: list[str] = []
    interleaved(3, {name: partial(order.append, name) for name in "abc"})
    assert "".join(order) == "abcbcacab"


def test_a_figure_tells_its_spread_only_after_several_runs() -> None:
    assert Figure.of([1_000.0]).told() == "1,000"
    assert Figure.of([3.0, 1.0, 2.0]).told(1) == "2.0 (1.0 to 3.0)"
    assert math.isnan(ratio(1.0, 0.0))


def test_a_bench_replaces_only_its_own_part_of_the_page(tmp_path: Path) -> None:
    page, order = tmp_path / "page.md", ["first", "second"]
    page.write_text("# Head\n\nBy hand.\n")
    for name, text in (("second", "old"), ("first", "one"), ("second", "new")):
        put(page, name, Section(name, text), "how", order)
    said = page.read_text()
    assert said.startswith("# Head\n\nBy hand.\n")
    assert said.index("one") < said.index("new")
    assert "old" not in said


def test_the_bare_endpoint_gets_the_statements_of_the_request_alone() -> None:
    expected = [Statement("SELECT a\nFROM b WHERE c = $1 AND d = $2 AND e = $3", ("it's alice", None, "7"))]
    assert statements_in(LOG, "alice") == expected


def test_the_bare_endpoint_writes_new_rows_each_time() -> None:
    new = {"old-id": "new-id"}
    logged = [scalar("\\x" + b'{"id":"old-id"}'.hex(), "bytea"), scalar("2", "int8"), scalar("7", "int4"), ["old-id"]]
    assert [renewed(value, new) for value in logged] == [b'{"id":"new-id"}', 2, 7, ["new-id"]]
