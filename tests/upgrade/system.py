"""A system that an earlier release has started, and that this release takes over while it runs."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

from tlim_devstack.ports import Ports, variable_of
from tlim_devstack.processes import ServerProcess, dies_with_parent
from tlim_devstack.services import GATEWAY, SERVICES, ServicePrograms
from tlim_devstack.stack import Stack
from tlim_devstack.supervision import Program
from tlim_devstack.waiting import free_port

from tests.e2e.conftest import LIMITS
from tests.upgrade.release import sources

OLD = SERVICES
"""The earlier release's processes: it has started them under these names."""
NEW = tuple(f"{service}-new" for service in SERVICES)
START_S = 180.0
STOP_S = 60.0


@contextmanager
def running_release(tree: Path, home: Path, ports: Ports) -> Iterator[None]:
    """Run the whole system of the release whose code is in `tree`: `make run` there, with its own preparations."""
    home.mkdir()
    log = home / "earlier-release.log"
    settings = {variable_of(name): str(port) for name, port in asdict(ports).items()}
    environment = {**LIMITS, **settings, "TLIM_HOME": str(home), "PYTHONPATH": sources(tree)}
    command = dies_with_parent([sys.executable, "-m", "tlim_devstack", "run"], "TERM")
    process = ServerProcess("the earlier release", command, log, environment)
    try:
        process.wait_ready(lambda: "tlim is ready" in log.read_text(errors="replace"), START_S)
        yield
    finally:
        process.stop(grace=STOP_S)


@dataclass(frozen=True, kw_only=True)
class NewPrograms(ServicePrograms):
    """The services' programs. They run where the earlier release has set its own PYTHONPATH."""

    def _service(self, name: str) -> Program:
        program = super()._service(name)
        return replace(program, environment={**program.environment, "PYTHONPATH": ""})


class UpgradedStack(Stack):
    """This release in the home of a system that runs. It has a second process of each service, at a port of its own."""

    def __init__(self, home: Path, ports: Ports) -> None:
        super().__init__(home, ports, environment=LIMITS, further={name: free_port() for name in NEW})
        programs = {one.name: getattr(self.services, one.name) for one in fields(self.services)}
        self.services = NewPrograms(**programs)

    def renew_nats(self) -> None:
        """Start NATS anew, with this release's configuration and users."""
        self._renew(next(program for program in self._server_programs() if program.name == "nats"))

    def prepare(self) -> None:
        """Run the jobs that come before new processes: streams, roles, migrations, bucket."""
        self._streams()
        self._databases()
        self._bucket()

    def renew_doors(self) -> None:
        """Start this release's XMPP server and gateway in the place of those that run."""
        self.supervisor.stop([self.xmpp_name])
        self._renew(self.xmpp.prepare())
        self._renew(next(program for program in self.services.all() if program.name == GATEWAY))

    def bring_new(self) -> None:
        """Start this release's processes beside the others, and wait until they are ready."""
        self.supervisor.replace(*(program for program in self.services.all() if program.name in NEW))
        self.come(NEW)

    def come(self, names: Sequence[str]) -> None:
        """Start processes, and wait until they are ready."""
        self.supervisor.start(*names)
        for name in names:
            self.wait_ready(name)

    def go(self, names: Sequence[str]) -> None:
        """Let processes end as an update does: each gives back what it has."""
        self.supervisor.stop(names)

    def _renew(self, program: Program) -> None:
        self.supervisor.replace(program)
        self.come([program.name])
