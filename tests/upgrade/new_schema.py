"""A plugin for the old release's pytest: its databases get the new release's migrations, on top of its own."""

import os
import subprocess
from importlib import import_module
from typing import Any

import pytest

NEW_PYTHON = "UPGRADE_DRILL_PYTHON"


def pytest_configure() -> None:
    """Replace how the template of a service's databases is migrated."""
    plugin: Any = import_module("tlim_devstack.pytest_plugin")  # the old one: it is loaded by now
    old = plugin._migrate

    def migrate(package: str, url: str) -> None:
        old(package, url)
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        command = [environment[NEW_PYTHON], "-m", "tlim_runtime.migrations", package]
        done = subprocess.run(  # noqa: S603 - ours
            command, env={**environment, "TLIM_DATABASE_URL": url}, capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            pytest.fail(f"the new migrations of {package} failed:\n{done.stdout}{done.stderr}")

    plugin._migrate = migrate
