"""The four services and the gateway as supervised programs, each with its environment."""

import json
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from tlim_admin.databases import DATABASE_SERVICES, owner_of
from tlim_admin.object_store import FILES_BUCKET, REGION

from tlim_devstack.credentials import Credentials, token_key_file
from tlim_devstack.layout import DEPLOY, package_file, program
from tlim_devstack.ports import Ports
from tlim_devstack.postgres import Login
from tlim_devstack.private_files import copy_private
from tlim_devstack.privileges import hand_over, not_as_root
from tlim_devstack.supervision import Program
from tlim_devstack.xmpp_servers import DOMAIN

BRIDGE = "xmpp-bridge"
SERVICES = ("session-api", "file-api", "message-store", BRIDGE)
GATEWAY = "gateway"


def package_of(service: str) -> str:
    """Return the Python package of a service; its database and its role have the same name."""
    return service.replace("-", "_")


def service_of(name: str) -> str:
    """Return the service of a program: `xmpp-bridge-2` is a further process of xmpp-bridge."""
    return next(service for service in SERVICES if name == service or name.startswith(f"{service}-"))


@dataclass(frozen=True)
class ServicePrograms:
    """The programs of one stack's services. `extra` is added to every service's environment and overrides the rest.

    `accounts_api` is the URL of the XMPP server's API for accounts, None if it has none.

    `further` are processes of services beside the first: name → HTTP port. `through` is for programs that reach a
    server by another port than the server's own: (name of the program, name of the port) → port. `components` are the
    names by which bridges log in to the XMPP server: name of the program → JID.
    """

    home: Path
    ports: Ports
    credentials: Credentials
    authority: Path
    public_address: str
    accounts_api: str | None
    components: Mapping[str, str]
    extra: dict[str, str]
    further: Mapping[str, int] = field(default_factory=dict)
    through: Mapping[tuple[str, str], int] = field(default_factory=dict)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of all programs of services."""
        return (*SERVICES, *self.further)

    def all(self) -> list[Program]:
        return [*(self._service(name) for name in self.names), self._gateway()]

    def port(self, name: str) -> int:
        """Return the HTTP port of a program."""
        return self.further[name] if name in self.further else int(getattr(self.ports, package_of(name)))

    def database(self, service: str, role: str) -> Login:
        """Return the login of a role into the database of that service."""
        package = package_of(service)
        return Login("127.0.0.1", self.ports.postgres, role, self.credentials.postgres_roles[role], package)

    def migration_url(self, service: str) -> str:
        """Return the database URL for the service's migrations. It names the role that owns the tables."""
        return self.database(service, owner_of(package_of(service))).url()

    def web_origins(self) -> list[str]:
        """Return the origins whose web pages may call the services: the JSON list in TLIM_CORS_ORIGINS."""
        origins: list[str] = json.loads({**os.environ, **self.extra}.get("TLIM_CORS_ORIGINS") or "[]")
        return origins

    def _service(self, name: str) -> Program:
        service = service_of(name)
        special: dict[str, Callable[[], dict[str, str]]] = {
            "session-api": self._session_api,
            "file-api": self._file_api,
            "xmpp-bridge": lambda: self._xmpp_bridge(name),
        }
        directory = self._directory(service)
        environment = {**self._common(name), **special.get(service, dict)(), **self.extra}
        hand_over(directory, service)
        needed = (directory, package_file(package_of(service)), Path(sys.prefix) / "pyvenv.cfg", Path(os.__file__))
        command = not_as_root(service, [sys.executable, "-m", package_of(service)], *needed, parent_death="TERM")
        return Program(name, command, environment)

    def _way(self, name: str, port: str) -> int:
        return self.through.get((name, port)) or int(getattr(self.ports, port))

    def _directory(self, name: str) -> Path:
        directory = self.home / name
        directory.mkdir(parents=True, exist_ok=True)
        return directory

    def _common(self, name: str) -> dict[str, str]:
        service = service_of(name)
        environment = {
            "HOME": str(
                self._directory(service)
            ),  # libraries look there for settings; root's own is closed to services
            "TLIM_HOST": "127.0.0.1",
            "TLIM_PORT": str(self.port(name)),
            "TLIM_NATS_URL": f"nats://127.0.0.1:{self._way(name, 'nats')}",
            "TLIM_NATS_USER": service,
            "TLIM_NATS_PASSWORD": self.credentials.nats[service],
            "TLIM_JWKS_URL": f"http://127.0.0.1:{self._keys_port()}/.well-known/jwks.json",
        }
        if package_of(service) in DATABASE_SERVICES:
            database = replace(self.database(service, package_of(service)), port=self._way(name, "postgres"))
            environment["TLIM_DATABASE_URL"] = database.url()
        return environment

    def _keys_port(self) -> int:
        """Return the port at which the token keys are: the gateway's, if more than one bridge has them."""
        return self.ports.gateway if "xmpp-bridge" in map(service_of, self.further) else self.ports.xmpp_bridge

    def _session_api(self) -> dict[str, str]:
        if self.accounts_api is None:
            return {}
        return {
            "TLIM_XMPP_ADMIN_URL": self.accounts_api,
            "TLIM_XMPP_ADMIN_TOKEN": self.credentials.xmpp_api,
            "TLIM_XMPP_DOMAIN": DOMAIN,
        }

    def _file_api(self) -> dict[str, str]:
        access_key, secret_key = self.credentials.s3_file_api
        return {
            "TLIM_S3_ENDPOINT_URL": f"http://127.0.0.1:{self.ports.s3}",
            # S3 through the gateway. If other machines may connect (TLIM_BIND), the user sets their address here.
            "TLIM_S3_PUBLIC_URL": os.environ.get("TLIM_S3_PUBLIC_URL") or f"http://127.0.0.1:{self.ports.files}",
            "TLIM_S3_REGION": REGION,
            "TLIM_S3_BUCKET": FILES_BUCKET,
            "TLIM_S3_ACCESS_KEY": access_key,
            "TLIM_S3_SECRET_KEY": secret_key,
        }

    def _xmpp_bridge(self, name: str) -> dict[str, str]:
        directory = self._directory("xmpp-bridge")
        return {
            "TLIM_XMPP_HOST": "127.0.0.1",
            "TLIM_XMPP_COMPONENT_PORT": str(self._way(name, "component")),
            "TLIM_XMPP_CLIENT_PORT": str(self._way(name, "xmpp")),
            "TLIM_XMPP_DOMAIN": DOMAIN,
            "TLIM_XMPP_CA_FILE": str(copy_private(self.authority, directory)),
            "TLIM_COMPONENT_JID": self.components[name],
            "TLIM_COMPONENT_SECRET": self.credentials.component,
            "TLIM_TOKEN_KEY_FILE": str(copy_private(token_key_file(self.home / "secrets"), directory)),
        }

    def _gateway(self) -> Program:
        config, directory = DEPLOY / "caddy" / "Caddyfile", self._directory(GATEWAY)
        hand_over(directory, GATEWAY)
        caddy = [str(program("caddy")), "run", "--config", str(config)]
        page = config.with_name("openapi.json")
        command = not_as_root(GATEWAY, caddy, directory, config, page, ports=(self.ports.gateway, self.ports.files))
        upstreams = {
            f"TLIM_{package_of(service).upper()}": " ".join(
                f"127.0.0.1:{self.port(name)}" for name in self.names if service_of(name) == service
            )
            for service in SERVICES
        }
        environment = {
            "TLIM_BIND": self.public_address,
            "TLIM_PAGES": str(config.parent),
            "TLIM_PORT_GATEWAY": str(self.ports.gateway),
            "TLIM_PORT_FILES": str(self.ports.files),
            "TLIM_S3": f"127.0.0.1:{self.ports.s3}",
            "TLIM_S3_BUCKET": FILES_BUCKET,
            "TLIM_CORS_ORIGINS": json.dumps(self.web_origins()),
            "XDG_DATA_HOME": str(directory),
            "XDG_CONFIG_HOME": str(directory),
        }
        return Program(GATEWAY, command, {**upstreams, **environment})
