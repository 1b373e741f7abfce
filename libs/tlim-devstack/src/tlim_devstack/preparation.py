"""Makes what must be there before the services start: streams, roles, databases, tables, bucket."""

import hashlib
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tlim_admin.databases import DATABASE_SERVICES
from tlim_admin.object_store import FILES_BUCKET, allow_origins, ensure_bucket

from tlim_devstack import postgres
from tlim_devstack.credentials import Credentials
from tlim_devstack.failures import StackError
from tlim_devstack.layout import package_file
from tlim_devstack.ports import Ports
from tlim_devstack.services import ServicePrograms
from tlim_devstack.shell import inherited


def together(*steps: Callable[[], None]) -> None:
    """Run the steps at the same time, and return when all have ended. Raises the error of the first failed step."""
    with ThreadPoolExecutor(max_workers=len(steps)) as pool:
        for outcome in [pool.submit(step) for step in steps]:
            outcome.result()


def provision_streams(ports: Ports, credentials: Credentials) -> None:
    """Create or update the JetStream streams and consumers."""
    user = "provision"
    environment = {
        "TLIM_NATS_URL": f"nats://127.0.0.1:{ports.nats}",
        "TLIM_NATS_USER": user,
        "TLIM_NATS_PASSWORD": credentials.nats[user],
    }
    _run("provisioning of NATS", ["tlim_runtime.provision"], environment)


def _run(what: str, module: list[str], environment: dict[str, str]) -> None:
    """Run a Python module as a command; StackError with its last line if it fails."""
    command = [sys.executable, "-m", *module]
    done = subprocess.run(command, env={**inherited(), **environment}, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        words = (done.stderr or done.stdout).strip().splitlines() or [f"exit status {done.returncode}"]
        raise StackError(f"the {what} failed: {words[-1]}")


def prepare_databases(admin: postgres.Login, services: ServicePrograms, stamps: Path) -> None:
    """Create missing roles and databases, and run the migrations that have not run yet."""
    postgres.create_roles(admin, services.credentials.postgres_roles)
    for package in DATABASE_SERVICES:
        if not postgres.database_exists(admin, package):
            postgres.create_database(admin, package, package)
    together(*(lambda package=package: _migrate(package, services, stamps) for package in DATABASE_SERVICES))


def _migrate(package: str, services: ServicePrograms, stamps: Path) -> None:
    state = _migrations_digest(package)
    stamp = stamps / f"migrated-{package}"
    if stamp.exists() and stamp.read_text() == state:
        return
    url = services.migration_url(package.replace("_", "-"))
    _run(f"migration of {package}", ["tlim_runtime.migrations", package], {"TLIM_DATABASE_URL": url})
    stamps.mkdir(mode=0o700, parents=True, exist_ok=True)
    stamp.write_text(state)


def _migrations_digest(package: str) -> str:
    versions = sorted((package_file(package).parent / "migrations" / "versions").glob("*.py"))
    return hashlib.sha256(b"".join(path.name.encode() + path.read_bytes() for path in versions)).hexdigest()


def prepare_bucket(services: ServicePrograms) -> None:
    """Create the bucket of the file service, open to the web pages that may call the services."""
    endpoint, key = f"http://127.0.0.1:{services.ports.s3}", services.credentials.s3_keys()[0]
    ensure_bucket(endpoint, key, FILES_BUCKET)
    allow_origins(endpoint, key, FILES_BUCKET, services.web_origins())
