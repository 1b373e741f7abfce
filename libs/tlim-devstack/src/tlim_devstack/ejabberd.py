"""ejabberd from Debian's package, run as an ordinary process with its own data."""

import os
import subprocess
from collections.abc import Iterable
from pathlib import Path

import httpx

from tlim_devstack.failures import StackError
from tlim_devstack.layout import DEPLOY, system_program
from tlim_devstack.plain_http import NO_TLS
from tlim_devstack.private_files import copy_private, write_private
from tlim_devstack.privileges import hand_over, not_as_root
from tlim_devstack.supervision import Program
from tlim_devstack.waiting import accepts_connections
from tlim_devstack.xmpp_servers import COMPONENT, DOMAIN, XmppSettings, fill_template

NAME, MAPPER = "ejabberd", "epmd"
NODE = "tlim@localhost"
JOIN = """
    application:load(mnesia),
    case filelib:is_file(filename:join(mnesia:system_info(directory), "schema.DAT")) of
        true -> ok;
        false -> ejabberd_cluster_mnesia:join('{node}')
    end."""
"""What a further node does before ejabberd starts: the first time it takes over the tables of the first node."""

LARGEST_BYTES = 4 * 1024**3  # with more memory ejabberd ends and is started again; so it cannot use up the machine
TROUBLE = frozenset("[]{}*?\\")  # ejabberd takes a path with these for a pattern, and then nobody can log in
ALREADY_REGISTERED = 10090  # ejabberd's code for an account that exists


def name_of(number: int) -> str:
    """Return the name of the program that is node `number` of a cluster."""
    return NAME if number == 1 else f"{NAME}-{number}"


class Ejabberd:
    """One ejabberd node with our modules.

    The nodes of a cluster have numbers from 1 on, and find each other through a port mapper at the port `mapper`. A
    node without a cluster listens to no other node. A further node takes everything over from the first when it starts
    for the first time.
    """

    package = "ejabberd"
    diverts = True

    def __init__(self, settings: XmppSettings, *, number: int = 1, mapper: int | None = None) -> None:
        self.name = name_of(number)
        self.settings, self.home = settings, settings.home / self.name
        self._number, self._mapper = number, mapper

    @property
    def accounts_api(self) -> str:
        """Where mod_http_api is mounted, for requests with the secret `xmpp_api`."""
        return f"http://127.0.0.1:{self.settings.ports.xmpp_api}/api"

    def prepare(self) -> Program:
        """Write the configuration and compile the modules; return the server."""
        settings, ports = self.settings, self.settings.ports
        if not str(self.home).isascii() or TROUBLE.intersection(str(self.home)):
            raise StackError(f"ejabberd cannot work in {self.home}: set TLIM_HOME to a folder with a plain ASCII name")
        self.home.mkdir(parents=True, exist_ok=True)
        config = fill_template(
            "ejabberd/ejabberd.yml",
            self.home / "ejabberd.yml",
            {
                "domain": DOMAIN,
                "component": COMPONENT,
                "accounts": "internal",
                "certificate_file": copy_private(settings.certificate, self.home),
                "public_address": settings.public_address,
                "component_address": "127.0.0.1",
                "client_port": ports.xmpp,
                "websocket_port": ports.websocket,
                "websocket_tls": "true" if settings.is_public else "false",
                "api_address": "127.0.0.1",
                "api_port": ports.xmpp_api,
                "component_port": ports.component,
                "component_secret": settings.credentials.component,
                "api_secret": settings.credentials.xmpp_api,
            },
        )
        library, modules = _library(), self.home / "modules"
        modules.mkdir(exist_ok=True)
        hand_over(self.home, NAME)
        compile_modules(sorted((DEPLOY / NAME).glob("*.erl")), library, modules)
        return Program(self.name, self._command(library), self._environment(library, config))

    def _command(self, library: Path) -> list[str]:
        # The data belongs to a node of this name.
        named = ["-sname", NODE if self._number == 1 else NODE.replace("@", f"{self._number}@"), "-start_epmd", "false"]
        if self._mapper is None:  # no other node can connect
            named += ["-dist_listen", "false"]
        else:
            named += ["-kernel", "inet_dist_use_interface", "{127,0,0,1}"]
        arguments = DEPLOY / NAME / "vm.args"
        options = ["-args_file", str(arguments)]
        code = ["-pa", str(library / "ebin"), "-pa", str(self.home / "modules")]
        data = ["-mnesia", "dir", f'"{self.home / "mnesia"}"']
        bounded = [str(system_program("prlimit", "util-linux")), f"--data={LARGEST_BYTES}"]
        erlang = [str(system_program("erl", "ejabberd")), "-noinput", *options, *named]
        joining = [] if self._number == 1 else ["-eval", JOIN.format(node=NODE).replace("\n", " ").strip()]
        command = [*bounded, *erlang, *code, *data, *joining, "-s", "ejabberd"]
        doors = (self.settings.ports.xmpp, self.settings.ports.websocket)
        return not_as_root(NAME, command, self.home, arguments, ports=doors)

    def _environment(self, library: Path, config: Path) -> dict[str, str]:
        return {
            "HOME": str(self.settings.home / NAME),  # Erlang makes the cookie of all nodes there
            **({} if self._mapper is None else {"ERL_EPMD_PORT": str(self._mapper)}),
            "ERL_LIBS": str(library.parent),
            "ERL_CRASH_DUMP": str(self.home / "crash.dump"),
            "EJABBERD_CONFIG_PATH": str(config),
            "EJABBERD_LOG_PATH": str(self.home / "ejabberd.log"),
        }

    def ready(self, log: str) -> bool:
        """Whether it listens for clients, the component and the API. If a module does not load, ejabberd stops."""
        del log
        ports = self.settings.ports
        return all(map(accepts_connections, (ports.xmpp, ports.component, ports.xmpp_api)))

    def register(self, user: str, password: str) -> None:
        """Create an account through the API; one that exists keeps its password."""
        answer = httpx.post(
            f"{self.accounts_api}/register",
            json={"user": user, "host": DOMAIN, "password": password},
            headers={"Authorization": f"Bearer {self.settings.credentials.xmpp_api}"},
            timeout=10,
            trust_env=False,
            verify=NO_TLS,
        )
        if answer.is_success:
            return
        if answer.headers.get("content-type", "").startswith("application/json"):
            problem = answer.json()
            if isinstance(problem, dict) and problem.get("code") == ALREADY_REGISTERED:
                return
        raise StackError(f"ejabberd did not register {user}: {answer.text.strip()}")


def mapper(port: int) -> Program:
    """Return the port mapper, by which the nodes of a cluster find each other, at a port of the loopback address."""
    command = [str(system_program("epmd", "erlang-base")), "-port", str(port), "-address", "127.0.0.1"]
    return Program(MAPPER, not_as_root(NAME, command))


def compile_modules(sources: Iterable[Path], library: Path, target: Path) -> None:
    """Compile modules of ours into `target`, but for those of which it has the same source.

    `target` is ejabberd's, and can hold links to other files. So ejabberd's user compiles.
    """
    stamps = {source: target / source.name for source in sources}
    new = [source for source, stamp in stamps.items() if not stamp.exists() or stamp.read_text() != source.read_text()]
    if not new:
        return
    includes = [library / "include", *library.parent.glob("*xmpp-*/include"), *_erlang_includes()]
    options = [word for directory in includes for word in ("-I", str(directory))]
    command = [str(system_program("erlc", "ejabberd")), "-o", str(target), *options, "-pa", str(library / "ebin")]
    compiler = not_as_root(NAME, [*command, *map(str, new)], target, *new)
    done = subprocess.run(compiler, capture_output=True, text=True, check=False, cwd="/")
    if done.returncode != 0:
        raise StackError(f"our modules do not compile: {(done.stdout + done.stderr).strip().splitlines()[0]}")
    for source in new:
        write_private(stamps[source], source.read_text())


def _library() -> Path:
    found = sorted(Path("/usr/lib").glob("*/ejabberd-*/ebin"))
    if not found or not os.access(found[-1], os.R_OK):
        raise StackError("ejabberd is not installed: apt-get install ejabberd")
    return found[-1].parent


def _erlang_includes() -> list[Path]:
    return sorted(Path("/usr/lib/erlang/lib").glob("p1_xmpp-*/include"))
