"""The operator's command: in its container, or beside a stack of processes with the same environment and secrets."""

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from tlim_admin.databases import roles
from tlim_admin.object_store import FILES_BUCKET, REGION
from tlim_devstack.shell import inherited
from tlim_devstack.stack import Stack
from tlim_devstack.xmpp_servers import DOMAIN

from tests.e2e.clients.containers import ComposeStack
from tests.e2e.conftest import IN_CONTAINERS


@dataclass(frozen=True)
class Operator:
    """Runs `tlim-admin` for one stack. `home` takes the secrets."""

    home: Path
    stack: Stack

    def run(self, *arguments: str, **environment: str) -> str:
        """Run a command that succeeds, and return what it printed."""
        if IN_CONTAINERS:
            return cast("ComposeStack", self.stack).operate(*arguments)
        done = self.try_to_run(*arguments, **environment)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def refused(self, *arguments: str, **environment: str) -> str:
        """Run a command that fails with status 1, and return what it said."""
        done = self.try_to_run(*arguments, **environment)
        assert done.returncode == 1, done.stdout + done.stderr
        return done.stdout or done.stderr

    def try_to_run(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run a command."""
        needs_secrets = arguments[0] != "replay"
        secrets = ["--secrets", str(self._secrets())] if needs_secrets else []
        command = [sys.executable, "-m", "tlim_admin", *arguments, *secrets]
        whole = {**inherited(), **self._environment(), **environment}
        return subprocess.run(command, env=whole, capture_output=True, text=True, check=False)  # noqa: S603 - ours

    def _secrets(self) -> Path:
        folder = self.home / "secrets"
        folder.mkdir(exist_ok=True)
        for role in roles():
            (folder / f"postgres-{role}").write_text(self.stack.credentials.postgres_roles[role])
        return folder

    def _environment(self) -> dict[str, str]:
        ports, credentials = self.stack.ports, self.stack.credentials
        access_key, secret_key = credentials.s3_file_api
        accounts = self.stack.xmpp.accounts_api
        return {
            "PATH": os.environ["PATH"],
            "TLIM_POSTGRES_URL": f"postgresql://127.0.0.1:{ports.postgres}",
            "TLIM_S3_ENDPOINT_URL": f"http://127.0.0.1:{ports.s3}",
            "TLIM_S3_BUCKET": FILES_BUCKET,
            "TLIM_S3_REGION": REGION,
            "TLIM_S3_ACCESS_KEY": access_key,
            "TLIM_S3_SECRET_KEY": secret_key,
            "TLIM_S3_PUBLIC_URL": f"http://127.0.0.1:{ports.files}",
            "TLIM_NATS_URL": f"nats://127.0.0.1:{ports.nats}",
            "TLIM_NATS_PASSWORD": credentials.nats["provision"],
            "TLIM_JWKS_URL": f"http://127.0.0.1:{ports.xmpp_bridge}/.well-known/jwks.json",
            "TLIM_GATEWAY": self.stack.addresses.gateway,
            "TLIM_SESSION_API": f"127.0.0.1:{ports.session_api}",
            "TLIM_FILE_API": f"127.0.0.1:{ports.file_api}",
            "TLIM_MESSAGE_STORE": f"127.0.0.1:{ports.message_store}",
            "TLIM_XMPP_BRIDGE": f"127.0.0.1:{ports.xmpp_bridge}",
            "TLIM_XMPP_HOST": "127.0.0.1",
            "TLIM_XMPP_CLIENT_PORT": str(ports.xmpp),
            "TLIM_XMPP_CA_FILE": str(self.stack.addresses.ca_file),
            "TLIM_XMPP_DOMAIN": DOMAIN,
            **({} if accounts is None else {"TLIM_XMPP_ADMIN_URL": accounts}),
            **({} if accounts is None else {"TLIM_XMPP_ADMIN_TOKEN": credentials.xmpp_api}),
        }
