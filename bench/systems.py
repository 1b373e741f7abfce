"""The systems that are compared: tlim, and what a team would pick instead, on the same PostgreSQL.

The other servers have the settings of deploy/ without our modules. So they differ from tlim in what is measured only.
"""

import re
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil
import yaml
from tlim_devstack import postgres
from tlim_devstack.certificates import ensure_certificates
from tlim_devstack.credentials import load_or_generate
from tlim_devstack.ejabberd import Ejabberd
from tlim_devstack.ports import Ports
from tlim_devstack.privileges import hand_over
from tlim_devstack.processes import ServerProcess
from tlim_devstack.prosody import Prosody
from tlim_devstack.stack import Stack
from tlim_devstack.supervision import Program
from tlim_devstack.waiting import accepts_connections
from tlim_devstack.xmpp_servers import DOMAIN, XmppSettings

from bench.stream import Account, Target

UNLIMITED = dict.fromkeys(
    (
        "TLIM_MESSAGES_PER_USER",
        "TLIM_RECEIPTS_PER_USER",
        "TLIM_BYTES_PER_USER",
        "TLIM_DELIVERIES_PER_USER",
        "TLIM_SESSION_CHANGES_PER_USER",
    ),
    "999999999/minute",
)
"""The limits per person, lifted: the load has few people."""

EJABBERD_TABLES = Path("/usr/share/ejabberd/sql/pg.sql")
MUC = f"muc.{DOMAIN}"
SERVICES = ("xmpp-bridge", "message-store", "session-api", "file-api", "gateway")


@dataclass(frozen=True)
class System:
    """A running system: what it is called in tables, where people log in, and its processes (name: process id)."""

    name: str
    target: Target
    processes: Mapping[str, int]
    enroll: Callable[[Sequence[str]], list[Account]]
    """Makes accounts for user ids."""
    metrics: Sequence[str] = ()
    """Where services that measure the stages of a message tell it."""

    def people(self, count: int) -> list[Account]:
        """Make so many people."""
        return self.enroll([f"person{number}-{secrets.token_hex(4)}" for number in range(count)])

    def processor_time(self) -> dict[str, float]:
        """Return the seconds of processor time that each process and its children have used so far (proc(5)).

        A child that has ended counts for its parent.
        """
        return {name: _used(psutil.Process(process)) for name, process in self.processes.items()}


def _used(process: psutil.Process) -> float:
    total = 0.0
    for one in (process, *process.children(recursive=True)):
        try:
            total += sum(one.cpu_times()[:4])  # user, system, and both of children that have ended
        except psutil.NoSuchProcess:  # its parent has it now
            continue
    return total


# --- tlim -------------------------------------------------------------------------------------------------------------


@contextmanager
def running_stack(home: Path, environment: Mapping[str, str] | None = None) -> Iterator[Stack]:
    """Run all of tlim with ejabberd, with data of its own in `home`. PostgreSQL syncs each commit to the disk."""
    stack = Stack(home, Ports.random(), environment={**UNLIMITED, **(environment or {})})
    stack.start()
    try:
        yield stack
    finally:
        stack.stop()


def tlim(stack: Stack, name: str = "tlim") -> System:
    """Return tlim as a system to be measured."""

    def enroll(names: Sequence[str]) -> list[Account]:
        accounts = [Account(name, stack.register_user(name)) for name in names]
        stack.enter_in_directory({name: name for name in names})
        return accounts

    at = stack.addresses
    parts = (*SERVICES, stack.xmpp_name, "nats", "postgres", "s3")
    processes = {part: stack.supervisor.pid(part) for part in parts}
    target = Target(at.xmpp_host, at.xmpp_port, at.domain, at.ca_file, True)
    metrics = [f"http://127.0.0.1:{port}/metrics" for port in (stack.ports.xmpp_bridge, stack.ports.message_store)]
    return System(name, target, processes, enroll, metrics)


# --- what a team would pick instead -----------------------------------------------------------------------------------


class OrdinaryEjabberd(Ejabberd):
    """ejabberd as in deploy/, without our modules and the component, and with an archive (XEP-0313) in a database."""

    def __init__(self, settings: XmppSettings, archive: postgres.Login | None) -> None:
        super().__init__(settings)
        self._archive = archive

    def prepare(self) -> Program:
        """Write the configuration; return the server."""
        program = super().prepare()
        path = self.home / "ejabberd.yml"
        config = yaml.safe_load(path.read_text())
        clients, _, api, _ = config["listen"]
        config["listen"] = [clients, {**api, "request_handlers": {"/api": "mod_http_api"}}]
        config["api_permissions"] = {
            "bench": {"from": ["mod_http_api"], "who": {"ip": "127.0.0.1/8"}, "what": ["register"]}
        }
        ours = [name for name in config["modules"] if name.startswith("mod_tlim")]
        for name in ours:
            del config["modules"][name]
        room = {
            "mam": self._archive is not None,
            "allow_subscription": True,
            "persistent": True,
            "max_users": 10_000,
            "presence_broadcast": [],  # a thousand people that enter would send half a million presences
        }
        config["modules"]["mod_muc"] = {
            "hosts": [MUC],
            "max_users": 10_000,
            "history_size": 0,
            "default_room_options": room,
        }
        if self._archive is not None:
            config["modules"]["mod_mam"] = {
                "db_type": "sql",
                "default": "always",
                "user_mucsub_from_muc_archive": True,  # a message of a room is stored once, and not for each member
            }
            config |= _sql_of_ejabberd(self._archive)
        path.write_text(yaml.safe_dump(config))
        return program

    def ready(self, log: str) -> bool:
        """Whether it listens for clients and the API."""
        del log
        return all(map(accepts_connections, (self.settings.ports.xmpp, self.settings.ports.xmpp_api)))

    def register(self, user: str, password: str) -> None:
        """Create an account through mod_http_api, which is open to loopback here. Raises httpx.HTTPStatusError."""
        account = {"user": user, "host": DOMAIN, "password": password}
        httpx.post(f"{self.accounts_api}/register", json=account, trust_env=False).raise_for_status()


def _sql_of_ejabberd(login: postgres.Login) -> dict[str, str | int]:
    return {
        "sql_type": "pgsql",
        "sql_server": login.host,
        "sql_port": login.port,
        "sql_database": login.database,
        "sql_username": login.user,
        "sql_password": login.password,
    }


class OrdinaryProsody(Prosody):
    """Prosody as in deploy/, without our modules and the component, and with an archive (XEP-0313) in a database."""

    def __init__(self, settings: XmppSettings, archive: postgres.Login | None) -> None:
        super().__init__(settings)
        self._archive = archive

    def prepare(self) -> Program:
        """Write the configuration; return the server."""
        program = super().prepare()
        text = self.config.read_text().replace('"tlim_bridge"; "tlim_sessions";', "$more")
        text = re.sub(r"(?m)^(Component .*|  component_secret .*|  validate_from_addresses .*|tlim_.*)\n", "", text)
        if self._archive is None:
            self.config.write_text(text.replace("$more", ""))
            return program
        login = self._archive
        where = f'host = "{login.host}"; port = {login.port}; database = "{login.database}"'
        sql = f'sql = {{ driver = "PostgreSQL"; {where}; username = "{login.user}"; password = "{login.password}" }}\n'
        head, host, tail = text.replace("$more", '"mam";').partition("VirtualHost")
        self.config.write_text(f'{head}storage = {{ archive = "sql" }}\n{sql}{host}{tail}')
        return program

    def ready(self, log: str) -> bool:
        """Whether it listens for clients."""
        del log
        return accepts_connections(self.settings.ports.xmpp)


@contextmanager
def running_other(
    name: str, kind: type[OrdinaryEjabberd | OrdinaryProsody], home: Path, beside: Stack, *, archive: bool
) -> Iterator[System]:
    """Run another system in `home`, with its archive on the PostgreSQL of `beside`."""
    certificates = ensure_certificates(home / "secrets", DOMAIN)
    settings = XmppSettings(home, Ports.random(), load_or_generate(home / "secrets"), certificates[1], "127.0.0.1")
    home.chmod(0o711)  # the server runs as another user if we are root
    login = _new_database(beside.postgres_admin) if archive else None
    if login is not None and kind is OrdinaryEjabberd:
        postgres.run_sql(login, EJABBERD_TABLES.read_text())
    server = kind(settings, login)
    program = server.prepare()
    hand_over(server.home, server.package)
    process = ServerProcess(name, program.command, home / "log", program.environment)
    try:
        process.wait_ready(lambda: server.ready(""))

        def enroll(names: Sequence[str]) -> list[Account]:
            accounts = [Account(name, secrets.token_hex(8)) for name in names]
            for account in accounts:
                server.register(*account)
            return accounts

        target = Target("127.0.0.1", settings.ports.xmpp, DOMAIN, certificates[0], False)
        processes = {server.package: process.process.pid}
        if archive:
            processes["postgres"] = beside.supervisor.pid("postgres")
        yield System(name, target, processes, enroll)
    finally:
        process.stop()


def _new_database(admin: postgres.Login) -> postgres.Login:
    name, password = f"archive_{secrets.token_hex(4)}", secrets.token_hex(16)
    made: Sequence[str] = (
        f"CREATE ROLE {name} LOGIN PASSWORD '{password}';",
        f"CREATE DATABASE {name} OWNER {name} TEMPLATE template0;",
    )
    postgres.run_sql(admin, "\n".join(made))
    return postgres.Login(admin.host, admin.port, name, password, name)
