"""The upgrade drill: `python -m tests.upgrade COMMIT [options of pytest]`, run in the repository's root.

It takes the code of an earlier release out of git and runs that release's own integration tests of the services with a
database, each on a schema that this release's migrations have upgraded. So old processes are shown to work beside new
ones, until the last one is replaced. The tests of the old migrations are left out.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.upgrade.release import extract, sources

SERVICES = ("session-api", "file-api", "message-store")
PLUGIN = "new_schema"
NEW_PYTHON = "UPGRADE_DRILL_PYTHON"
"""The variable by which the plugin hears of the Python that has this release's packages."""


def main(commit: str, options: list[str]) -> int:
    """Run the tests; return pytest's exit status."""
    with tempfile.TemporaryDirectory(prefix="tlim-upgrade-") as folder:
        tree = Path(folder)
        extract(commit, tree)
        tests = [f"services/{service}/tests/integration" for service in SERVICES]
        ignored = [f"--deselect={one}/test_migrations.py" for one in tests]
        command = [sys.executable, "-m", "pytest", "-q", "-p", PLUGIN, "-p", "no:cacheprovider", *ignored, *options]
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), sources(tree)]),
            NEW_PYTHON: sys.executable,
        }
        return subprocess.run([*command, *tests], cwd=tree, env=environment, check=False).returncode  # noqa: S603


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(f"{__doc__}")
    sys.exit(main(sys.argv[1], sys.argv[2:]))
