"""Writes files that hold secrets."""

import os
from pathlib import Path


def write_private(path: Path, text: str) -> None:
    """Write a file that no other user can read. It is written completely or not at all.

    A symbolic link at `path` is replaced. The directory may belong to a server that is less trusted than we are.
    """
    draft = path.with_suffix(".new")
    draft.unlink(missing_ok=True)
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:  # EXCL follows no link
        file.write(text)
    draft.replace(path)


def copy_private(source: Path, directory: Path) -> Path:
    """Copy a file of ours into a part's directory under the same name, and return the copy's path."""
    copy = directory / source.name
    write_private(copy, source.read_text())
    return copy
