"""Prosody from Debian's package, run as an ordinary process: the second XMPP server that the bridge works with."""

import subprocess
from collections.abc import Sequence

from tlim_devstack.failures import StackError
from tlim_devstack.layout import DEPLOY, system_program
from tlim_devstack.private_files import copy_private
from tlim_devstack.privileges import hand_over, not_as_root
from tlim_devstack.supervision import Program
from tlim_devstack.waiting import accepts_connections
from tlim_devstack.xmpp_servers import COMPONENT, DOMAIN, XmppSettings, fill_template

NAME = "prosody"


class Prosody:
    """One Prosody with mod_tlim_bridge. Each bridge has one of `components` for itself."""

    package = "prosody"
    accounts_api = None
    diverts = True

    def __init__(self, settings: XmppSettings, *, components: Sequence[str] = (COMPONENT,)) -> None:
        self.settings, self.home = settings, settings.home / NAME
        self._components = components
        self.config = self.home / "prosody.cfg.lua"

    def prepare(self) -> Program:
        """Write the configuration; return the server."""
        settings, ports = self.settings, self.settings.ports
        for directory in ("data", "certificates"):
            (self.home / directory).mkdir(parents=True, exist_ok=True)
        certificate = copy_private(settings.certificate, self.home / "certificates")
        fill_template(
            "prosody/prosody.cfg.lua",
            self.config,
            {
                "domain": DOMAIN,
                "components": ", ".join(f'"{component}"' for component in self._components),
                "data_directory": self.home / "data",
                "module_directory": DEPLOY / NAME,
                "certificate_file": certificate,
                "certificate_directory": certificate.parent,
                "public_address": settings.public_address,
                "component_address": "127.0.0.1",
                "client_port": ports.xmpp,
                "websocket_plain": "false" if settings.is_public else "true",
                "http_port": "" if settings.is_public else ports.websocket,
                "https_port": ports.websocket if settings.is_public else "",
                "component_port": ports.component,
                "component_secret": settings.credentials.component,
            },
        )
        hand_over(self.home, NAME)
        return Program(NAME, self._as_prosody("prosody", "-F"))

    def _as_prosody(self, program: str, *arguments: str) -> list[str]:
        command = [str(system_program(program, "prosody")), "--config", str(self.config), *arguments]
        doors = (self.settings.ports.xmpp, self.settings.ports.websocket)
        return not_as_root(NAME, command, self.home, *(DEPLOY / NAME).glob("*.lua"), ports=doors)

    def ready(self, log: str) -> bool:
        """Whether it listens for clients and the component, and our module says that it diverts messages.

        Prosody also starts if our module does not load. Then tlim messages would pass by the bridge.
        """
        ports = self.settings.ports
        return "diverting tlim messages" in log and all(map(accepts_connections, (ports.xmpp, ports.component)))

    def register(self, user: str, password: str) -> None:
        """Create an account in Prosody's files."""
        command = self._as_prosody("prosodyctl", "register", user, DOMAIN)
        typed = f"{password}\n{password}\n"  # every user of this machine can read an argument
        done = subprocess.run(command, input=typed, capture_output=True, text=True, check=False, cwd="/")
        if done.returncode != 0:
            raise StackError(f"Prosody did not register {user}: {(done.stdout + done.stderr).strip()}")
