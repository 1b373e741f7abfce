"""What the pages show."""

import re
from pathlib import Path
from typing import Any

import yaml


def section(page: Path, title: str) -> str:
    """Return the text below a heading of the second rank, up to the next one."""
    _, _, rest = page.read_text(encoding="utf-8").partition(f"\n## {title}\n")
    assert rest, title
    return rest.partition("\n## ")[0]


def shown(page: Path, key: str, below: str = "") -> Any:
    """Return the value of the key with which the one block of YAML on a page, or below one of its headings, begins."""
    text = section(page, below) if below else page.read_text(encoding="utf-8")
    (lines,) = re.findall(rf"^```yaml\n({key}:\n.*?)^```", text, re.MULTILINE | re.DOTALL)
    return yaml.safe_load(lines)[key]


def to_type(page: Path, heading: str) -> str:
    """Return the lines of the one block that a shell gets below a heading."""
    (lines,) = re.findall(r"^```sh\n(.*?)^```", section(page, heading), re.MULTILINE | re.DOTALL)
    return str(lines)
