"""Folders that get their name when they are complete."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tlim_admin.backup.manifest import BackupError
from tlim_admin.backup.objects import together
from tlim_admin.progress import Steps


@contextmanager
def drafted(target: Path, steps: Steps) -> Iterator[Path]:
    """Lend an empty folder beside `target`, which becomes `target` at the end; a name in .zip gets an archive of it.

    Only its owner may read it. Raises BackupError if `target` exists. If the block fails, nothing is left.
    """
    if target.exists():
        raise BackupError(f"{target} is there already: choose a new name")
    draft = target.with_name(f"{target.name}.partial")
    try:
        draft.mkdir(mode=0o700, parents=True)
    except FileExistsError:
        raise BackupError(f"{draft} is there: another run writes it, or was killed; then remove it") from None
    try:
        yield draft
        _finish(draft, target, steps)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _finish(draft: Path, target: Path, steps: Steps) -> None:
    whole = draft
    if target.suffix == ".zip":
        inner = draft / "content"  # so that a failure leaves nothing
        whole = inner.with_suffix(".zip")
        names = list(draft.iterdir())
        inner.mkdir()
        for name in names:
            name.rename(inner / name.name)
        with steps.step("packing the archive"):
            shutil.make_archive(str(inner), "zip", inner)
        whole.chmod(0o600)
    with steps.step("bringing it to the disk"):
        for _ in together(_flush, [whole, *whole.rglob("*")]):  # all of it is on the disk before it looks whole
            pass
        whole.rename(target)
        _flush(target.parent)


def _flush(path: Path) -> None:
    """Bring a file or a folder to the disk, and no other: a database beside it must not wait for all of ours."""
    opened = os.open(path, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
