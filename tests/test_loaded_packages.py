"""What processes load: a package costs memory in a service and time before a command, also one that nobody calls."""

import subprocess
import sys

import pytest

HEAVY = {"PIL", "aiodns", "aiohttp", "alembic", "boto3", "httpx", "pygments", "rich"}
"""Other processes decode pictures and run migrations. Our libraries work without the rest."""

TRACING = {"google.protobuf", "opentelemetry.exporter", "opentelemetry.sdk", "requests", "tlim_runtime.otlp"}
"""What only traces need. FastAPI itself imports opentelemetry's API."""

NEEDED = {"file_api": {"aiohttp", "boto3"}}

PROGRAM = """
import runpy, sys
from importlib import import_module
from types import SimpleNamespace

def run(package):
    import_module(f"{package}.app").create_app(import_module(f"{package}.settings").Settings.placeholder())
    print(*(name for name, module in sys.modules.items() if module))

sys.modules["tlim_runtime.server"] = SimpleNamespace(run=run)
runpy.run_module(sys.argv[1], run_name="__main__")
"""


@pytest.mark.parametrize("package", ["session_api", "file_api", "message_store", "xmpp_bridge"])
def test_a_service_loads_no_package_that_it_does_not_need(package: str) -> None:
    finished = subprocess.run(  # noqa: S603
        [sys.executable, "-c", PROGRAM, package], check=True, capture_output=True, text=True
    )
    loaded = set(finished.stdout.split())
    assert package in loaded
    assert loaded & (HEAVY | TRACING) == NEEDED.get(package, set())


@pytest.mark.parametrize("command", ["tlim_admin.__main__", "xmpp_bridge.admin_token"])
def test_a_command_loads_neither_a_web_framework_nor_an_orm(command: str) -> None:
    program = f"import sys, {command}; print(*sys.modules)"
    finished = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)  # noqa: S603
    assert command in (loaded := finished.stdout.split())
    assert {"fastapi", "sqlalchemy"}.isdisjoint(loaded)
