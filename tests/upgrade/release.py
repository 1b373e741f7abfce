"""An earlier release, out of git: its code beside the packages that are installed here."""

import os
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

RELEASE_BEFORE = Path(__file__).with_name("release_before").read_text(encoding="utf-8").strip()
"""The commit of the release before. Whoever has made a release writes its commit into the file `release_before`."""

EARLIER = os.environ.get("UPGRADE_FROM") or RELEASE_BEFORE
"""The commit from which the drills upgrade."""


class NoHistoryError(Exception):
    """Git does not have the commit. The text says how to get it."""


def extract(commit: str, target: Path) -> None:
    """Write the tree of a commit into a folder. Raises NoHistoryError."""
    # Not tarfile: in Python 3.11.2, which Debian has, its safe way of unpacking is missing.
    command = ["tar", "--extract", "--file=-", "--directory", str(target)]
    subprocess.run(command, input=_git(commit, "archive", commit), check=True)  # noqa: S603 - ours
    target.chmod(0o755)  # services run as users of their own


def files(commit: str) -> list[str]:
    """Return the paths of all files of a commit. Raises NoHistoryError."""
    return _git(commit, "ls-tree", "-r", "--name-only", commit).decode().splitlines()


def _git(commit: str, *arguments: str) -> bytes:
    done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, check=False)  # noqa: S603, S607 - a developer's
    if done.returncode != 0:
        said = done.stderr.decode().strip().splitlines()[0].partition(commit)[0].rstrip(": ")
        raise NoHistoryError(f"the release before is not in this clone ({said}): git fetch --depth 1 origin {commit}")
    return done.stdout


def sources(tree: Path) -> str:
    """Return the PYTHONPATH with which the packages of a tree come before the installed ones."""
    return os.pathsep.join(map(str, [*tree.glob("libs/*/src"), *tree.glob("services/*/src")]))
