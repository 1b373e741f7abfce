"""A small file system for tests, and what becomes of it when the test is killed."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from tlim_devstack.disks import small_disk
from tlim_devstack.failures import StackError
from tlim_devstack.waiting import wait_until

pytestmark = pytest.mark.integration

HOLDS_IT = """
import sys
from pathlib import Path
from tlim_devstack.disks import small_disk
with small_disk(Path(sys.argv[1]), 1):
    print("mounted", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    try:
        with small_disk(tmp_path / "possible", 1):
            pass
    except StackError as error:
        if os.environ.get("TLIM_E2E_DISK") == "always":
            pytest.fail(str(error))
        pytest.skip(str(error))
    return tmp_path / "disk"


def test_a_disk_is_there_until_the_block_ends(place: Path) -> None:
    with small_disk(place, 1) as disk:
        assert disk.is_mount()
    assert not place.is_mount()


def test_a_disk_goes_with_the_process_that_made_it(place: Path) -> None:
    command = [sys.executable, "-c", HOLDS_IT, str(place)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "mounted\n"
        assert place.is_mount()
        process.send_signal(signal.SIGKILL)
    wait_until(lambda: not place.is_mount(), "unmounted")
