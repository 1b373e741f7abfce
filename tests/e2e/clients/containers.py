"""The system in containers behind the interface of tlim_devstack's Stack, as far as the stories use it."""

import csv
import io
import json
import os
import secrets
import subprocess
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import httpx
from tlim_devstack.failures import StackError
from tlim_devstack.ports import Ports
from tlim_devstack.stack import StackAddresses
from tlim_devstack.waiting import wait_until
from tlim_devstack.xmpp_servers import COMPONENT, DOMAIN

ROOT = Path(__file__).parents[3]
READY_S = 300
"""A health check runs every five seconds, and a server that was killed reads its data first."""

START_S = 900
"""The jobs run one after another, each with a start of Python. On a machine that is busy this takes minutes."""


def printed_by(
    program: str,
    *arguments: str,
    options: Sequence[str] = (),
    stdin: str | None = None,
    env: Mapping[str, str] | None = None,
) -> str:
    """Run `program options… arguments…` in the project's folder and return what it printed.

    Raises StackError with its last line if it fails.
    """
    done = subprocess.run(  # noqa: S603
        [program, *options, *arguments],
        input=stdin,
        cwd=ROOT,
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        last = (done.stderr or done.stdout).strip().splitlines()[-1:]
        raise StackError(f"{program} {' '.join(arguments[:2])}: {''.join(last)}")
    return done.stdout


class Compose:
    """The containers of one project, by the names of docker-compose.yml (Parts). `files` are further overrides."""

    def __init__(self, ports: Ports, project: str, files: Iterable[Path] = ()) -> None:
        doors = ("gateway", "files", "xmpp", "websocket")
        whole = os.environ.get("COMPOSE_FILE", "docker-compose.yml")
        self._project = project
        self._environment = {
            **os.environ,
            "COMPOSE_FILE": ":".join([whole, "tests/e2e/stories.yml", *map(str, files)]),
            "COMPOSE_PROJECT_NAME": project,
            "TLIM_BIND": "127.0.0.1",  # whatever a .env of the developer's says
            "TLIM_S3_PUBLIC_URL": f"http://127.0.0.1:{ports.files}",
            **{f"TLIM_PORT_{door.upper()}": str(getattr(ports, door)) for door in doors},
        }

    def run(self, *arguments: str) -> str:
        """Run `docker compose …` and return what it printed; StackError with its last line if it fails."""
        return self._docker("compose", *arguments)

    def states(self) -> dict[str, str]:
        """Return the state of each container that should run for ever, in supervisord's words."""
        lines = self.run("ps", "--all", "--format", "json").splitlines()
        found = {one["Service"]: one for one in map(json.loads, lines)}
        lasting = {name: one for name, one in found.items() if one["Health"] or one["ExitCode"] or name in _LASTING}
        return {name: "RUNNING" if one["State"] == "running" else "STOPPED" for name, one in lasting.items()}

    def pid(self, name: str) -> int:
        """Return the process id of a container's first process, 0 if it does not run."""
        return int(self._inspect(name, "{{.State.Pid}}"))

    def is_healthy(self, name: str) -> bool:
        """Whether Docker calls a container healthy: a check has passed, and not many after it have failed."""
        return self._inspect(name, "{{.State.Health.Status}}") == "healthy"

    def stop(self, names: Iterable[str]) -> None:
        if names := list(names):
            self.run("stop", *names)

    def start(self, *names: str) -> None:
        if names:
            self.run("start", *names)

    def kill(self, name: str) -> None:
        """Kill a container and start it again. Docker does not restart by itself what was killed by hand."""
        self._docker("kill", self._container(name))
        self._docker("start", self._container(name))

    @contextmanager
    def paused(self, name: str) -> Iterator[None]:
        """Have all processes of a container stand still until the block ends."""
        self._docker("pause", self._container(name))
        try:
            yield
        finally:
            self._docker("unpause", self._container(name))

    def empty(self, name: str, volume: str) -> None:
        """Make a container and its volume anew, with nothing in it; what they need is done as at a first start."""
        self.run("rm", "--stop", "--force", name, "prepare")  # both have the volume
        self._docker("volume", "rm", f"{self._project}_{volume}")
        self.run("up", "--detach", "--wait", name)

    def logs(self, name: str) -> str:
        return self.run("logs", "--no-color", "--no-log-prefix", name)

    def typed(self, lines: str) -> str:
        """Type lines into a shell in the project's folder, and return what they printed."""
        return printed_by("sh", "-euc", lines, env=self._environment)

    def execute(self, name: str, *command: str) -> str:
        return self.run("exec", "-T", name, *command)

    def _container(self, name: str) -> str:
        return f"{self._project}-{name}-1"

    def _inspect(self, name: str, what: str) -> str:
        return self._docker("inspect", "--format", what, self._container(name)).strip()

    def _docker(self, *arguments: str) -> str:
        return printed_by("docker", *arguments, env=self._environment)


AS_ROOT = (
    'docker run --rm --interactive --network none --user 0:0 --volume "$PWD/secrets:/secrets" '
    '--entrypoint sh "${TLIM_IMAGES:-localhost/tlim}/admin:${TLIM_VERSION:-dev}" -c'
)
"""What a shell runs to change a secret: docs/operations.md, "Rotate"."""

VOLUMES = {"nats": "nats", "postgres": "postgres-18", "s3": "s3", "ejabberd": "ejabberd"}
"""Server → its volume in docker-compose.yml."""

_LASTING = {"nats", "postgres", "s3", "ejabberd", "gateway", "session-api", "file-api", "message-store", "xmpp-bridge"}


class _Accounts:
    """The XMPP server as a story asks about it: session-api makes its accounts."""

    accounts_api = "http://ejabberd:5281/api"


class Parts(Protocol):
    """The containers or pods of the system by the names of its parts. This is what Supervisor is for a Stack."""

    def states(self) -> dict[str, str]: ...
    def pid(self, name: str) -> int: ...
    def is_healthy(self, name: str) -> bool: ...
    def stop(self, names: Iterable[str]) -> None: ...
    def start(self, *names: str) -> None: ...
    def kill(self, name: str) -> None: ...
    def logs(self, name: str) -> str: ...
    def execute(self, name: str, *command: str) -> str: ...


class DoorsStack:
    """The whole system, of which nothing but its doors can be reached; `ready_s` bounds a part's way to readiness.

    `scheme` is what the gateway speaks. Whoever asks it over https trusts the authorities of SSL_CERT_FILE.
    """

    xmpp_name = "ejabberd"

    def __init__(
        self, supervisor: Parts, host: str, ports: Ports, ca_file: Path, *, ready_s: float, scheme: str = "http"
    ) -> None:
        self.ports = ports
        self.supervisor = supervisor
        self.xmpp = _Accounts()
        self._ready_s = ready_s
        self.addresses = StackAddresses(
            gateway=f"{scheme}://{host}:{ports.gateway}",
            xmpp_host=host,
            xmpp_port=ports.xmpp,
            websocket=f"wss://{host}:{ports.websocket}/ws",
            domain=DOMAIN,
            component=COMPONENT,
            addressed=None,
            ca_file=ca_file,
        )

    def kill(self, name: str) -> None:
        """Kill a part with SIGKILL; it is started again."""
        self.supervisor.kill(name)

    def stop_service(self, name: str) -> None:
        self.supervisor.stop([name])

    def start_service(self, name: str) -> None:
        """Start a part that was stopped, and wait until it is ready."""
        self.supervisor.start(name)
        self.wait_ready(name)

    def restart(self, name: str) -> None:
        """Stop a part, start it again, and wait until it is ready."""
        self.stop_service(name)
        self.start_service(name)

    def wait_ready(self, name: str) -> None:
        """Wait until a part's health check passes."""
        wait_until(lambda: self.supervisor.is_healthy(name), name, self._ready_s)

    def logs(self, name: str) -> str:
        return self.supervisor.logs(name)

    def certificate(self) -> str:
        """Return the file of ejabberd's certificate and its key."""
        return self.supervisor.execute(self.xmpp_name, "cat", "/run/secrets/xmpp.pem")

    def register_user(self, user: str, name: str | None = None, password: str | None = None) -> str:
        """Create an XMPP account and enter the user in the users directory; return the password."""
        password = password or secrets.token_hex(8)
        text = io.StringIO()
        csv.writer(text).writerows([("user_id", "name", "password"), (user, name or user, password)])
        report = self._ask("POST", "/v1/users/import", content=text.getvalue().encode(), media_type="text/csv").json()
        if report["invalid"]:
            raise StackError(f"{user} was not registered: {report['invalid']}")
        return password

    def enter_in_directory(self, names: Mapping[str, str]) -> None:
        """Create or rename people in the users directory: user id → name."""
        for user, name in names.items():
            self._ask("PUT", f"/v1/users/{user}", content=json.dumps({"name": name}).encode())

    def admin_token(self, subject: str = "admin") -> str:
        """Return a token of `subject` with scope `admin`, good for an hour."""
        command = ("python3", "-m", "xmpp_bridge.admin_token", "--subject", subject, "--minutes", "60")
        return self.supervisor.execute("xmpp-bridge", *command).strip()

    def http(self, seconds: float) -> httpx.Client:
        """Return a client for the gateway that asks no proxy."""
        authorities = httpx.create_ssl_context()
        return httpx.Client(base_url=self.addresses.gateway, trust_env=False, timeout=seconds, verify=authorities)

    @cached_property
    def _token(self) -> str:
        return self.admin_token()

    def _ask(self, method: str, path: str, *, media_type: str = "application/json", **request: Any) -> httpx.Response:
        headers = {"Authorization": f"Bearer {self._token}", "Content-Type": media_type}
        with self.http(seconds=30) as http:
            answer = http.request(method, path, headers=headers, **request)
        if not answer.is_success:
            raise StackError(f"{method} {path}: {answer.status_code} {answer.text.strip()}")
        return answer


class ComposeStack(DoorsStack):
    """The containers of docker-compose.yml, started for the stories: a project of this name, with further overrides."""

    def __init__(self, project: str = "tlim-stories", files: Iterable[Path] = ()) -> None:
        ports = Ports.random()
        self._compose = Compose(ports, project, files)
        super().__init__(self._compose, "127.0.0.1", ports, ROOT / "secrets" / "ca.pem", ready_s=READY_S)

    def start(self) -> None:
        """Start everything with empty volumes, and return when every part is ready."""
        self.stop()
        self._compose.run("up", "--detach", "--wait", "--wait-timeout", str(START_S))

    def stop(self) -> None:
        """Remove the containers and their data."""
        self._compose.run("down", "--volumes", "--timeout", "5")

    def is_ready(self, name: str) -> bool:
        """Whether a service says now that it is ready."""
        try:
            self._compose.execute(name, "/opt/tlim/bin/healthy")
        except StackError:
            return False
        return True

    def paused(self, name: str) -> AbstractContextManager[None]:
        """Have a part stand still until the block ends."""
        return self._compose.paused(name)

    def lose(self, server: str) -> None:
        """Have a server lose all its data."""
        self._compose.empty(server, VOLUMES[server])

    def renew_certificate(self, pem: str) -> None:
        """Write into the file of ejabberd's certificate as root does; in a container, because we may not be root."""
        self._compose.typed(f"{AS_ROOT} 'cat >/secrets/xmpp.pem' <<'END'\n{pem}END\n")

    def typed(self, lines: str) -> str:
        """Type the lines of a page, for the port at which this gateway is, and return what they printed."""
        return self._compose.typed(lines.replace("localhost:9090", f"127.0.0.1:{self.ports.gateway}"))

    def operate(self, *arguments: str) -> str:
        """Run the operator's command and return what it printed; StackError with its last line if it fails."""
        return self._compose.run("run", "--rm", "-T", "admin", *arguments)
