"""The upgrade drill: `python -m tests.upgrade [options of pytest]`, run in the repository's root.

It takes the code of the release before out of git (UPGRADE_FROM: another commit). It runs that release's own
integration tests of the services with a database, each on a schema that the migrations of both releases have made. So
old processes are shown to work beside new ones, until the last one is replaced. The tests of the old migrations are
left out. What fails runs once more at the end, and is a failure if it fails again: old tests cannot be mended.
"""

import os
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from tests.upgrade.release import EARLIER, NoHistoryError, extract, sources

FAILED = int(pytest.ExitCode.TESTS_FAILED)
SERVICES = ("session-api", "file-api", "message-store")
PLUGIN = "new_schema"
NEW_PYTHON = "UPGRADE_DRILL_PYTHON"
"""The variable by which the plugin hears of the Python that has this release's packages."""


def main(options: list[str]) -> int:
    """Run the tests; return pytest's exit status."""
    with tempfile.TemporaryDirectory(prefix="tlim-upgrade-") as folder:
        tree = Path(folder)
        try:
            extract(EARLIER, tree)
        except NoHistoryError as error:
            sys.exit(str(error))
        tests = [f"services/{service}/tests/integration" for service in SERVICES]
        ignored = [f"--deselect={one}/test_migrations.py" for one in tests]
        command = [sys.executable, "-m", "pytest", "-q", "-p", PLUGIN, *ignored, *options, *tests]
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), sources(tree)]),
            NEW_PYTHON: sys.executable,
        }
        try:
            return _run_twice(command, tree, environment)
        finally:
            end_left_behind(tree)


def _run_twice(command: list[str], tree: Path, environment: dict[str, str]) -> int:
    status = subprocess.run(command, cwd=tree, env=environment, check=False).returncode  # noqa: S603
    if status != FAILED:
        return status
    sys.stderr.write("What failed runs once more, one after the other: the machine may have been busy.\n")
    again = [*command, "--last-failed", "--numprocesses=0"]
    return subprocess.run(again, cwd=tree, env=environment, check=False).returncode  # noqa: S603


def end_left_behind(tree: Path) -> None:
    """Kill what runs code of this tree: an old test that fails may leave its service behind."""
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if str(tree) in process.environ().get("PYTHONPATH", ""):
                process.kill()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
