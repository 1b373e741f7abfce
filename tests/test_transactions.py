"""Only one place begins transactions of asyncpg, as it knows when a connection must not be used any more."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
BEGUN_HERE = {"libs/tlim-runtime/src/tlim_runtime/transactions.py"}
OF_OURS = {"_archive"}  # message_store.archive_repository.Archive, which uses that place


def test_transactions_begin_in_one_place() -> None:
    sources = [
        file for source in (*ROOT.glob("libs/*/src"), *ROOT.glob("services/*/src")) for file in source.rglob("*.py")
    ]
    found = {
        str(file.relative_to(ROOT))
        for file in sources
        if set(re.findall(r"(\w+)\.transaction\(", file.read_text(encoding="utf-8"))) - OF_OURS
    }
    assert found == BEGUN_HERE
