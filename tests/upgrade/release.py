"""The code of an earlier release, out of git."""

import os
import subprocess
import tarfile
from io import BytesIO
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def extract(commit: str, target: Path) -> None:
    """Write the tree of a commit into a folder."""
    archive = subprocess.run(["git", "archive", commit], cwd=ROOT, stdout=subprocess.PIPE, check=True).stdout  # noqa: S603, S607 - a developer's
    with tarfile.open(fileobj=BytesIO(archive)) as tree:
        tree.extractall(target, filter="data")


def sources(tree: Path) -> str:
    """Return the PYTHONPATH with which the packages of a tree come before the installed ones."""
    return os.pathsep.join(map(str, [*tree.glob("libs/*/src"), *tree.glob("services/*/src")]))
