"""Prosody from Debian's package, run as an ordinary process: the second XMPP server that the bridge works with."""

import os
import subprocess

from tlim_devstack.failures import StackError
from tlim_devstack.layout import DEPLOY, system_program
from tlim_devstack.processes import dies_with_parent
from tlim_devstack.supervision import Program
from tlim_devstack.waiting import accepts_connections
from tlim_devstack.xmpp_servers import COMPONENT, DOMAIN, XmppSettings, fill_template

NAME = "prosody"


class Prosody:
    """One Prosody with mod_tlim_bridge."""

    package = "prosody"
    accounts_api = None

    def __init__(self, settings: XmppSettings) -> None:
        self.settings, self.home = settings, settings.home / NAME
        self.config = self.home / "prosody.cfg.lua"

    def prepare(self) -> list[Program]:
        """Write the configuration; return the server."""
        settings, ports = self.settings, self.settings.ports
        (self.home / "data").mkdir(parents=True, exist_ok=True)
        fill_template(
            "prosody/prosody.cfg.lua",
            self.config,
            {
                "domain": DOMAIN,
                "component": COMPONENT,
                "run_as_root": "true" if os.geteuid() == 0 else "false",
                "data_directory": self.home / "data",
                "module_directory": DEPLOY / NAME,
                "certificate_file": settings.certificate,
                "certificate_directory": settings.certificate.parent,
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
        command = [str(system_program("prosody", "prosody")), "--config", str(self.config), "-F"]
        return [Program(NAME, dies_with_parent(command))]

    def ready(self, log: str) -> bool:
        """Whether it listens for clients and the component, and our module says that it diverts messages.

        Prosody also starts if our module does not load. Then tlim messages would pass by the bridge.
        """
        ports = self.settings.ports
        return "diverting tlim messages" in log and all(map(accepts_connections, (ports.xmpp, ports.component)))

    def register(self, user: str, password: str) -> None:
        """Create an account in Prosody's files."""
        tool = str(system_program("prosodyctl", "prosody"))
        command = [tool, "--config", str(self.config), "register", user, DOMAIN, password]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise StackError(f"Prosody did not register {user}: {(done.stdout + done.stderr).strip()}")
