"""What the pages show."""

import re
from pathlib import Path
from typing import Any

import yaml


def shown(page: Path, key: str) -> Any:
    """Return the value of the key with which the one block of YAML on a page begins."""
    text = page.read_text(encoding="utf-8")
    (lines,) = re.findall(rf"^```yaml\n({key}:\n.*?)^```", text, re.MULTILINE | re.DOTALL)
    return yaml.safe_load(lines)[key]
