"""A small file system of its own, for tests that fill a disk."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tlim_devstack.failures import StackError
from tlim_devstack.layout import system_program

_CHUNK = 4096  # a page; at most this much stays free

# It ends when we close the pipe, or die. Lazily: whatever we started may outlive us by a moment.
_UNMOUNT = 'cat; exec "$0" --lazy "$1"'


@contextmanager
def small_disk(directory: Path, mebibytes: int) -> Iterator[Path]:
    """Mount a file system of that size, in memory, on `directory` until the block ends, or this process does.

    Raises StackError if that is not possible. It needs root, and many containers may not do it.
    """
    directory.mkdir()
    mount, size = str(system_program("mount", "mount")), f"size={mebibytes}m"
    command = [mount, "-t", "tmpfs", "-o", size, "tlim-test", str(directory)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise StackError(f"no file system can be mounted here: {done.stderr.strip()}")
    umount = ["/bin/sh", "-c", _UNMOUNT, str(system_program("umount", "mount")), str(directory)]
    with subprocess.Popen(umount, stdin=subprocess.PIPE, start_new_session=True):  # it gets no Ctrl-C of ours
        yield directory
    if directory.is_mount():
        raise StackError(f"{directory} could not be unmounted")


def fill(file: Path) -> None:
    """Take all the space that there is on the disk of `file`."""
    with suppress(OSError), file.open("ab", buffering=0) as out:
        while True:
            out.write(bytes(_CHUNK))
