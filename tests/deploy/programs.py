"""Programs that packages of the group `dev` bring."""

import os
import shutil
import sys
from pathlib import Path


def program(name: str) -> str:
    """Return where a program is: beside this Python, or else on PATH. A test without it fails, and is not skipped."""
    found = shutil.which(name, path=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
    assert found, f"{name} is missing: scripts/bootstrap installs it"
    return found
