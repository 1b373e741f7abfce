"""Makes what must be there before the services start: streams, roles, databases, tables, bucket."""

import hashlib
import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from subprocess import CompletedProcess

from tlim_admin.databases import DATABASE_SERVICES
from tlim_admin.object_store import FILES_BUCKET, allow_origins, ensure_bucket

from tlim_devstack import postgres
from tlim_devstack.credentials import Credentials
from tlim_devstack.failures import StackError
from tlim_devstack.layout import package_file
from tlim_devstack.ports import Ports
from tlim_devstack.services import ServicePrograms
from tlim_devstack.shell import inherited


def provision_streams(ports: Ports, credentials: Credentials) -> None:
    """Create or update the JetStream streams and consumers."""
    user = "provision"
    environment = {
        "TLIM_NATS_URL": f"nats://127.0.0.1:{ports.nats}",
        "TLIM_NATS_USER": user,
        "TLIM_NATS_PASSWORD": credentials.nats[user],
    }
    done = _run("tlim_runtime.provision", environment=environment)
    if done.returncode != 0:
        raise StackError(f"the provisioning of NATS failed: {_last_words(done)}")


def _run(module: str, *, said: str = "", environment: Mapping[str, str] | None = None) -> CompletedProcess[str]:
    """Run a Python module as a command, with `said` on its stdin."""
    command, variables = [sys.executable, "-m", module], {**inherited(), **(environment or {})}
    return subprocess.run(command, env=variables, input=said, capture_output=True, text=True, check=False)


def _last_words(done: CompletedProcess[str]) -> str:
    lines = done.stderr.strip().splitlines()
    return lines[-1] if lines else f"exit status {done.returncode}"


def prepare_databases(admin: postgres.Login, services: ServicePrograms, stamps: Path) -> None:
    """Create missing roles and databases, and run the migrations that have not run yet."""
    postgres.create_roles(admin, services.credentials.postgres_roles)
    for package in DATABASE_SERVICES:
        if not postgres.database_exists(admin, package):
            postgres.create_database(admin, package, package)
    _migrate(services, stamps)


def _migrate(services: ServicePrograms, stamps: Path) -> None:
    wanted = {stamps / f"migrated-{package}": (package, _migrations_digest(package)) for package in DATABASE_SERVICES}
    new = {stamp: it for stamp, it in wanted.items() if not stamp.exists() or stamp.read_text() != it[1]}
    if not new:
        return
    urls = {package: services.migration_url(package.replace("_", "-")) for package, _ in new.values()}
    done = _run("tlim_devstack.migrations", said=json.dumps(urls))
    if done.returncode != 0:
        begun = done.stdout.split()[-1:] or ["the databases"]
        raise StackError(f"the migration of {begun[0]} failed: {_last_words(done)}")
    stamps.mkdir(mode=0o700, parents=True, exist_ok=True)
    for stamp, (_, digest) in new.items():
        stamp.write_text(digest)


def _migrations_digest(package: str) -> str:
    versions = sorted((package_file(package).parent / "migrations" / "versions").glob("*.py"))
    return hashlib.sha256(b"".join(path.name.encode() + path.read_bytes() for path in versions)).hexdigest()


def prepare_bucket(services: ServicePrograms) -> None:
    """Create the bucket of the file service, open to the web pages that may call the services."""
    endpoint, key = f"http://127.0.0.1:{services.ports.s3}", services.credentials.s3_keys()[0]
    ensure_bucket(endpoint, key, FILES_BUCKET)
    allow_origins(endpoint, key, FILES_BUCKET, services.web_origins())
