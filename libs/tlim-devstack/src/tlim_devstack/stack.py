"""All of tlim on one machine: servers, services and gateway. They start in order, and a stop leaves nothing behind."""

import json
import os
import secrets
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import suppress
from dataclasses import dataclass, replace
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException
from pathlib import Path

import httpx

from tlim_devstack import nats, postgres, preparation, s3
from tlim_devstack.certificates import ensure_certificates
from tlim_devstack.credentials import load_or_generate, token_key_file
from tlim_devstack.ejabberd import MAPPER, Ejabberd, mapper, name_of
from tlim_devstack.failures import StackError
from tlim_devstack.layout import DEPLOY
from tlim_devstack.openfire import Openfire
from tlim_devstack.plain_http import NO_TLS
from tlim_devstack.ports import Ports
from tlim_devstack.privileges import close_to_others, closed_to_others, hand_over, not_as_root, passing_capability
from tlim_devstack.processes import dies_with_parent
from tlim_devstack.prosody import Prosody
from tlim_devstack.services import BRIDGE, GATEWAY, SERVICES, ServicePrograms, service_of
from tlim_devstack.shell import inherited
from tlim_devstack.supervision import Program, Supervisor
from tlim_devstack.waiting import accepts_connections, free_port, wait_until
from tlim_devstack.xmpp_servers import COMPONENT, DOMAIN, XmppServer, XmppSettings, component_of

XMPP_SERVERS: dict[str, type[Ejabberd | Prosody | Openfire]] = {
    "ejabberd": Ejabberd,
    "prosody": Prosody,
    "openfire": Openfire,
}
KEEPER = "keeper"
FAILED_STARTS = 4  # a part may end while another part is not there yet: it gets this many tries
START_SECONDS = 90  # enough for a first start on a slow machine


@dataclass(frozen=True)
class StackAddresses:
    """Where to reach a running stack. `ca_file` is the certificate authority to trust for XMPP.

    `addressed` is the component's name if clients must address it, and None if the XMPP server diverts messages to it.
    """

    gateway: str
    xmpp_host: str
    xmpp_port: int
    websocket: str
    domain: str
    component: str
    addressed: str | None
    ca_file: Path


class Stack:
    """One stack with all its data below `home`. Several can run at the same time on different ports.

    Call `start()` from the main thread, or from a thread that lives as long as the stack. The kernel stops the stack
    when the thread that started it ends, unless `background` is set.

    `further` and `through` are those of ServicePrograms. `further_nodes` are the ports of more nodes of ejabberd, which
    make one cluster with the first. They find each other by epmd, or each by the port mapper that `through` names for
    it. A start leaves further processes and nodes stopped.
    """

    def __init__(
        self,
        home: Path,
        ports: Ports | None = None,
        xmpp: str = "ejabberd",
        *,
        environment: Mapping[str, str] | None = None,
        public_address: str = "127.0.0.1",
        demo_users: Sequence[str] = (),
        say: Callable[[str], None] = lambda _: None,
        further: Mapping[str, int] | None = None,
        through: Mapping[tuple[str, str], int] | None = None,
        further_nodes: Sequence[Ports] = (),
    ) -> None:
        self.home, self.ports, self.say = home.resolve(), ports or Ports(), say
        self.demo_users = tuple(demo_users)
        self.credentials = load_or_generate(self.home / "secrets")
        authority, certificate = ensure_certificates(self.home / "secrets", DOMAIN)
        settings = XmppSettings(self.home, self.ports, self.credentials, certificate, public_address)
        self.xmpp_name = xmpp
        through = through or {}
        self._mapper = free_port() if further_nodes and (xmpp, MAPPER) not in through else None
        nodes = [
            Ejabberd(replace(settings, ports=of_node), number=number, mapper=through.get((name, MAPPER), self._mapper))
            for number, of_node in enumerate([self.ports, *further_nodes], 1)
            for name in [name_of(number)]
        ]
        bridges = [BRIDGE, *(name for name in further or {} if service_of(name) == BRIDGE)]
        components = {name: component_of(name) if xmpp == "prosody" else COMPONENT for name in bridges}
        servers: dict[str, Callable[[], XmppServer]] = {
            "ejabberd": lambda: nodes[0],
            "prosody": lambda: Prosody(settings, components=tuple(components.values())),
            "openfire": lambda: Openfire(settings),
        }
        self.xmpp = servers[xmpp]()
        self.further_nodes = {node.name: node for node in nodes[1:]}
        self.addresses = StackAddresses(
            gateway=f"http://127.0.0.1:{self.ports.gateway}",
            xmpp_host="127.0.0.1",
            xmpp_port=self.ports.xmpp,
            websocket=f"{'wss' if settings.is_public else 'ws'}://127.0.0.1:{self.ports.websocket}/ws",
            domain=DOMAIN,
            component=COMPONENT,
            addressed=None if self.xmpp.diverts else COMPONENT,
            ca_file=authority,
        )
        self.supervisor = Supervisor(self.home)
        self._given_up = threading.Event()
        self.services = ServicePrograms(
            self.home,
            self.ports,
            self.credentials,
            authority,
            public_address,
            accounts_api=self.xmpp.accounts_api,
            components=components,
            extra={**({} if self.xmpp.diverts else {"TLIM_ACCEPT": "addressed"}), **(environment or {})},
            further=further or {},
            through=through,
        )
        self.postgres_admin = postgres.Login(
            "127.0.0.1", self.ports.postgres, postgres.SUPERUSER, self.credentials.postgres_admin
        )

    # --- life ---------------------------------------------------------------------------------------------------

    def start(self, *, background: bool = False) -> None:
        """Start everything and return when every part is ready. Raises StackError otherwise, and stops all parts."""
        self.ports.check_free()
        s3.remove_sockets(self.ports.s3, self.ports.s3_inner)
        close_to_others(self.home)  # at first, because servers that can pass through `home` need no capability
        self._say_what_is_closed()
        try:
            servers = self._prepared_servers()
            nodes = [node.prepare() for node in self.further_nodes.values()]
            self.supervisor.configure([*servers, *nodes, *self.services.all(), self._keeper()])
            close_to_others(self.home)
            self.supervisor.launch(background=background)
            self.supervisor.start(*(program.name for program in servers))
            self._together(self._record, self._bucket, self._xmpp_accounts)
            self._ready_services()
            self.supervisor.start(KEEPER)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Stop everything in an order in which each part can finish: doors, services, servers. Data stays."""
        if self.supervisor.is_running():
            names = set(self.supervisor.states())
            doors = {KEEPER, GATEWAY}
            services = set(self.services.names)
            for group in (doors, services, names - doors - services):
                self.supervisor.stop(sorted(group))
            s3.remove_sockets(self.ports.s3, self.ports.s3_inner)
        self.supervisor.shutdown()

    def migrate(self) -> None:
        """Run the migrations that a running stack's databases have not seen."""
        preparation.prepare_databases(self.postgres_admin, self.services, self.home / "stamps")

    # --- parts --------------------------------------------------------------------------------------------------

    def kill(self, name: str) -> None:
        """Kill a part with SIGKILL; the process runner starts it again."""
        self.supervisor.kill(name)

    def stop_service(self, name: str) -> None:
        """Stop a part and leave it stopped."""
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
        """Wait until a part is ready; StackError with its log's last lines when it gave up or took too long."""
        failed_starts = set()

        def ready() -> bool:
            if self._given_up.is_set():
                raise StackError("given up")
            failed_starts.add(self.supervisor.start_failed_at(name))
            if len(failed_starts - {0}) >= FAILED_STARTS:
                raise StackError(f"{name} does not start")
            return self.is_ready(name)

        try:
            wait_until(ready, name, START_SECONDS)
        except StackError as error:
            raise StackError(f"{error}{self._what_is_red(name)}; {self._log_hint(name)}") from error

    def is_ready(self, name: str) -> bool:
        """Whether a part can do its work now; a service is asked for its readiness."""
        if name in self.services.names:
            return _readiness(self.services.port(name))[0] == HTTPStatus.OK
        if name in self.further_nodes:
            return self.further_nodes[name].ready(self.logs(name))
        ports = self.ports
        conditions: dict[str, Callable[[], bool]] = {
            "nats": lambda: nats.greets(ports.nats),
            "postgres": lambda: accepts_connections(ports.postgres) and postgres.answers(self.postgres_admin),
            "s3": lambda: accepts_connections(ports.s3) and self._s3_takes_writes(),
            self.xmpp_name: lambda: self.xmpp.ready(self.logs(self.xmpp_name)),
            GATEWAY: lambda: accepts_connections(ports.gateway),
        }
        return conditions[name]()

    def logs(self, name: str) -> str:
        """Return everything that a part has printed since the log was last rotated."""
        return (self.supervisor.logs / f"{name}.log").read_text(errors="replace")

    # --- people -------------------------------------------------------------------------------------------------

    def register_user(self, user: str, name: str | None = None, password: str | None = None) -> str:
        """Create an XMPP account and return its password. With `name`, enter the user in the users directory, too."""
        password = password or secrets.token_hex(8)
        self.xmpp.register(user, password)
        if name is not None:
            self.enter_in_directory({user: name})
        return password

    def enter_in_directory(self, names: Mapping[str, str]) -> None:
        """Create or rename people in the users directory: user id → name."""
        headers = {"Authorization": f"Bearer {self.admin_token()}"}
        sessions = f"http://127.0.0.1:{self.ports.session_api}"
        with httpx.Client(base_url=sessions, trust_env=False, verify=NO_TLS, timeout=10) as http:
            for user, name in names.items():
                answer = http.put(f"/v1/users/{user}", json={"name": name}, headers=headers)
                if not answer.is_success:
                    raise StackError(f"the users directory refused {user}: {answer.status_code} {answer.text.strip()}")

    def admin_token(self, subject: str = "admin") -> str:
        """Return a token of `subject` with scope `admin`, good for an hour, signed with this stack's key."""
        environment = {**inherited(), "TLIM_TOKEN_KEY_FILE": str(token_key_file(self.home / "secrets"))}
        command = [sys.executable, "-m", "xmpp_bridge.admin_token", "--subject", subject, "--minutes", "60"]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise StackError(f"no admin token: {done.stderr.strip().splitlines()[-1]}")
        return done.stdout.strip()

    # --- steps of a start ---------------------------------------------------------------------------------------

    def _say_what_is_closed(self) -> None:
        closed = closed_to_others(self.home, DEPLOY, Path(sys.prefix), Path(os.__file__))
        if closed and os.geteuid() == 0:
            kept = f"parts keep CAP_{passing_capability().upper()} to reach their files behind it"
            self.say(f"{closed} is closed to other users: {kept}")

    def _prepared_servers(self) -> list[Program]:
        """Make what the servers need. At a first start initdb and ejabberd's compiler work at the same time."""
        with ThreadPoolExecutor(max_workers=1) as pool:
            data, password = self.home / "postgres", self.credentials.postgres_admin
            cluster = pool.submit(postgres.create_cluster, data, password)
            servers = [*self._server_programs(), *self._mappers(), self.xmpp.prepare()]
            cluster.result()
        return servers

    def _server_programs(self) -> list[Program]:
        data = self.home / "s3" / "data"
        data.mkdir(parents=True, exist_ok=True)
        identities = s3.write_identities(self.home / "s3", self.credentials.s3_keys())
        s3_environment = s3.secure(self.home / "s3")
        config = nats.write_config(self.home / "nats", self.credentials.nats, self.credentials.nats_monitor)
        for part in ("s3", "nats"):
            hand_over(self.home / part, part)
        nats_server = nats.command(config, self.home / "nats" / "data", self.ports.nats, self.ports.nats_monitor)
        weed = s3.command(data, identities, self.ports.s3, self.ports.s3_inner)
        return [
            Program("nats", not_as_root("nats", nats_server, self.home / "nats", parent_death="TERM")),
            Program("postgres", postgres.command(self.home / "postgres", self.ports.postgres), stop_signal="INT"),
            # KILL, because after TERM it waits 15 s. Nothing is lost: the kernel has everything that it acknowledged.
            Program("s3", not_as_root("s3", weed, self.home / "s3"), s3_environment, stop_signal="KILL"),
        ]

    def _mappers(self) -> list[Program]:
        return [] if self._mapper is None else [mapper(self._mapper)]

    def _keeper(self) -> Program:
        command = [sys.executable, "-m", "tlim_devstack.keeper", str(self.home), str(self.ports.nats_monitor)]
        return Program(KEEPER, dies_with_parent(command), {"NATS_MONITOR": self.credentials.nats_monitor})

    def _record(self) -> None:
        self._together(self._streams, self._databases)
        # Their start takes longest. So they start now, and wait for S3 and XMPP themselves.
        self.supervisor.start(*SERVICES, GATEWAY)

    def _streams(self) -> None:
        self.wait_ready("nats")
        preparation.provision_streams(self.ports, self.credentials)
        self.say("NATS is ready, streams are provisioned")

    def _databases(self) -> None:
        self.wait_ready("postgres")
        preparation.prepare_databases(self.postgres_admin, self.services, self.home / "stamps")
        self.say("PostgreSQL is ready, databases are migrated")

    def _bucket(self) -> None:
        self.wait_ready("s3")
        preparation.prepare_bucket(self.services)
        self.say("S3 is ready")

    def _xmpp_accounts(self) -> None:
        self.wait_ready(self.xmpp_name)
        for user in self.demo_users:
            self.xmpp.register(user, self.credentials.users[user])
        self.say(f"{self.xmpp_name} is ready")

    def _ready_services(self) -> None:
        for name in (*SERVICES, GATEWAY):
            self.wait_ready(name)
            self.say(f"{name} is ready")
        entered = self.home / "stamps" / "demo-users-entered"
        if self.demo_users and not entered.exists():
            self.enter_in_directory({user: user.capitalize() for user in self.demo_users})
            entered.touch()

    def _together(self, *steps: Callable[[], None]) -> None:
        """Run the steps at the same time. If one fails, or if we are interrupted, the others stop waiting."""
        with ThreadPoolExecutor(max_workers=len(steps)) as pool:
            try:
                for done in as_completed([pool.submit(step) for step in steps]):
                    done.result()
            except BaseException:
                self._given_up.set()
                raise

    def _s3_takes_writes(self) -> bool:
        return s3.takes_writes(f"http://127.0.0.1:{self.ports.s3}", self.credentials.s3_keys()[0], "ready")

    def _what_is_red(self, name: str) -> str:
        if name not in self.services.names:
            return ""
        with suppress(ValueError, KeyError):
            checks = json.loads(_readiness(self.services.port(name))[1])["checks"]
            return "".join(f"; {check}: {outcome}" for check, outcome in checks.items() if outcome != "ok")
        return ""

    def _log_hint(self, name: str) -> str:
        lines = [line for line in self.logs(name).splitlines() if line.strip()]
        last = f", last line: {lines[-1][:300]}" if lines else ""
        return f"see {self.supervisor.logs / name}.log{last}"


def _readiness(port: int) -> tuple[int, bytes]:
    connection = HTTPConnection("127.0.0.1", port, timeout=5)  # asked many times: httpx would load the CAs each time
    try:
        connection.request("GET", "/readyz")
        answer = connection.getresponse()
        return answer.status, answer.read()
    except (OSError, HTTPException):
        return 0, b""
    finally:
        connection.close()
