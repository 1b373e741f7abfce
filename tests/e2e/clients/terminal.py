"""A terminal in which a person types `tlim …`."""

import asyncio
import json
import os
import sysconfig
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from tlim_devstack.stack import Stack

from tests.e2e.clients.people import Person

TLIM = Path(sysconfig.get_path("scripts")) / "tlim"


class Terminal:
    """A shell with its own profiles, in which `tlim` is typed."""

    def __init__(self, folder: Path, stack: Stack) -> None:
        at = stack.addresses
        self.folder = folder
        self._login_options = () if at.addressed is None else ("--component", at.addressed)
        self._environment = {
            **os.environ,
            "XDG_CONFIG_HOME": str(folder / "config"),
            "TLIM_GATEWAY": at.gateway,
            "TLIM_XMPP": f"{at.xmpp_host}:{at.xmpp_port}",
            "TLIM_CA_FILE": str(at.ca_file),
        }

    async def run(self, *arguments: str, typed: str = "") -> tuple[int, str, str]:
        """Run `tlim` to its end; return exit code, output, errors."""
        async with self.running(*arguments) as process:
            out, err = await asyncio.wait_for(process.communicate(typed.encode()), 60)
            return process.returncode or 0, out.decode(), err.decode()

    async def ok(self, *arguments: str, typed: str = "") -> str:
        """Run `tlim`, which must succeed; return its output."""
        code, out, err = await self.run(*arguments, typed=typed)
        assert (code, err) == (0, ""), f"{arguments}: {err}"
        return out

    async def log_in(self, person: Person) -> None:
        """Log a person in, with their password typed."""
        options = ("--password-stdin", *self._login_options)
        await self.ok("login", person.user_id, *options, typed=person.password)

    @asynccontextmanager
    async def running(self, *arguments: str) -> AsyncIterator[Process]:
        """Yield a running `tlim`, and end it afterwards."""
        process = await asyncio.create_subprocess_exec(
            TLIM, *arguments, stdin=PIPE, stdout=PIPE, stderr=PIPE, cwd=self.folder, env=self._environment
        )
        try:
            yield process
        finally:
            if process.returncode is None:
                process.terminate()
            await process.communicate()


async def next_json(process: Process) -> dict[str, Any]:
    """Return the next line that a `tlim … --json` prints. The end of what was missed is passed over."""
    assert process.stdout is not None
    while True:
        line: dict[str, Any] = json.loads(await asyncio.wait_for(process.stdout.readline(), 60))
        if line.get("kind") != "caught-up":
            return line
