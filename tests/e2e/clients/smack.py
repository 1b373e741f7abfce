"""A device that speaks through Smack, the client library of the specification: tests/e2e/smack, driven by lines."""

import asyncio
import os
import shutil
import subprocess
from asyncio.subprocess import PIPE, Process
from collections.abc import Callable
from pathlib import Path
from typing import Self

import pytest
from slixmpp.xmlstream import ET
from tlim_client.inbox import Carbon, Delivered, Inbox, Plain, R, anything
from tlim_client.stanzas import read_stanza
from tlim_client.xmpp import ServerAddress
from tlim_protocol.envelope import Envelope, write_envelope

PROJECT = Path(__file__).parents[1] / "smack"
QUICK_START = ("-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xmx128m")  # it lives for seconds and does little
PATIENCE = 40
"""Seconds for Java to do one thing, on a busy machine."""


def build() -> Path:
    """Compile the project once per run and return its classpath folder; without Java or Maven the story is skipped.

    TLIM_E2E_SMACK=always (as in CI) makes that a failure. Maven keeps what it has downloaded in its own repository.
    """
    if shutil.which("javac") is None or shutil.which("mvn") is None:
        reason = "Smack needs Java and Maven: scripts/bootstrap default-jdk-headless maven"
        if os.environ.get("TLIM_E2E_SMACK") == "always":
            pytest.fail(reason)
        pytest.skip(reason)
    done = subprocess.run(  # noqa: S603  # a fixed command
        [str(shutil.which("mvn")), "-q", "-B", "compile"], cwd=PROJECT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"mvn compile in {PROJECT}:\n{done.stdout}{done.stderr}"
    return PROJECT / "target"


class SmackClient:
    """A device of a user; everything that Smack hands to its application goes to `inbox`, as events of our client."""

    def __init__(self, process: Process, server: ServerAddress, user: str) -> None:
        self._process, self._server, self._user = process, server, user
        self._signs: asyncio.Queue[tuple[str, str]] = asyncio.Queue()
        self._reading = asyncio.ensure_future(self._read())
        self.inbox = Inbox()
        self.jid = ""

    @classmethod
    async def start(cls, target: Path, server: ServerAddress, user: str, password: str) -> Self:
        """Start Java and log in."""
        classpath = f"{target / 'classes'}{os.pathsep}{target / 'libraries'}/*"
        where = (server.host, str(server.port), server.domain, str(server.ca_file), user)
        process = await asyncio.create_subprocess_exec(
            "java", *QUICK_START, "-cp", classpath, "Client", *where, stdin=PIPE, stdout=PIPE, limit=1 << 22
        )
        client = cls(process, server, user)
        client._say(password)
        client._say("login")
        _, client.jid = await client._sign("ready")
        return client

    async def send(self, envelope: Envelope) -> str:
        """Send an envelope to the address that the server expects, and return the stanza id."""
        return await self.send_body(write_envelope(envelope), self._server.entrance(envelope.msg_to))

    async def send_body(self, body: str, to: str) -> str:
        """Send any one-line text in a message with the specification's extension, and return the stanza id."""
        self._say(f"send {to} {body}")
        _, stanza_id = await self._sign("sent")
        return stanza_id

    async def drop(self) -> None:
        """Close the socket without ending the stream, like a network that fails."""
        self._say("drop")
        await self._sign("dropped")

    async def resume(self) -> bool:
        """Log in again and return whether the server still had the stream."""
        self._say("resume")
        kind, _ = await self._sign("resumed", "authenticated")
        return kind == "resumed"

    async def expect(self, kind: type[R], where: Callable[[R], bool] = anything) -> R:
        """Return the next event of `kind` for which `where` holds."""
        return await self.inbox.take(kind, where)

    async def close(self) -> None:
        """Log out and end Java."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        try:
            await asyncio.wait_for(self._process.wait(), PATIENCE)
        except TimeoutError:
            self._process.kill()
            await self._process.wait()
        await self._reading

    def _say(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n".encode())

    async def _sign(self, *kinds: str) -> tuple[str, str]:
        """Return the next line of one of these kinds; others are passed over."""
        async with asyncio.timeout(PATIENCE):
            while True:
                kind, content = await self._signs.get()
                assert kind != "ended", f"Smack ended while {kinds} was waited for; its last words stand above"
                if kind in kinds:
                    return kind, content

    async def _read(self) -> None:
        assert self._process.stdout is not None
        while line := await self._process.stdout.readline():
            kind, _, content = line.decode().rstrip("\n").partition(" ")
            if kind == "message" or kind.startswith("carbon-"):
                self._hear(kind, content)
            else:
                self._signs.put_nowait((kind, content))
        self._signs.put_nowait(("ended", ""))

    def _hear(self, kind: str, xml: str) -> None:
        me = f"{self._user}@{self._server.domain}"
        event = read_stanza(ET.fromstring(xml), me, self._server.domain)
        if kind != "message" and isinstance(event, Delivered | Plain):
            event = Carbon(sent=kind == "carbon-sent", message=event)
        if event is not None:
            self.inbox.put(event)
