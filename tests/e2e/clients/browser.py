"""A real headless Chromium, asked over its DevTools protocol. Only tests of the operations page need it."""

import asyncio
import base64
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
from tenacity import AsyncRetrying, stop_after_delay, wait_fixed

ARGUMENTS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
    "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1",  # without a way to the internet
    "--remote-debugging-port=0", "--window-size=1280,1500",
)  # fmt: skip
_DEVTOOLS = re.compile(rb"DevTools listening on (ws://\S+)")


class Page:
    """One tab. `troubles` are its exceptions, and what its content security policy refused."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._session = ""
        self._number = 0
        self.troubles: list[str] = []

    async def open(self) -> None:
        target = await self.ask("Target.createTarget", url="about:blank")
        attached = await self.ask("Target.attachToTarget", targetId=target["targetId"], flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            await self.ask(f"{domain}.enable")

    async def ask(self, method: str, **parameters: object) -> dict[str, Any]:
        self._number += 1
        session = {"sessionId": self._session} if self._session else {}
        await self._socket.send_json({"id": self._number, "method": method, "params": parameters, **session})
        while True:
            said = json.loads((await self._socket.receive()).data)
            if said.get("method") in {"Runtime.exceptionThrown", "Log.entryAdded"}:
                self.troubles.append(json.dumps(said["params"]))
            if said.get("id") == self._number:
                assert "error" not in said, said
                result: dict[str, Any] = said["result"]
                return result

    async def run(self, script: str) -> Any:
        done = await self.ask("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in done, done
        return done["result"].get("value")

    async def text(self, selector: str) -> str:
        return str(await self.run(f"document.querySelector({json.dumps(selector)})?.innerText ?? ''"))

    async def eventually(self, check: Callable[[], Awaitable[None]]) -> None:
        async for attempt in AsyncRetrying(stop=stop_after_delay(90), wait=wait_fixed(0.2), reraise=True):
            with attempt:
                await check()

    async def screenshot(self, path: Path) -> None:
        shot = await self.ask("Page.captureScreenshot", format="png", captureBeyondViewport=True)
        await asyncio.to_thread(_write, path, base64.b64decode(shot["data"]))


def _write(path: Path, picture: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(picture)


@asynccontextmanager
async def chromium(home: Path) -> AsyncIterator[Page]:
    """Start Debian's Chromium with a profile in `home`; end it with the block."""
    process = await asyncio.create_subprocess_exec(
        "chromium", *ARGUMENTS, f"--user-data-dir={home}", stderr=asyncio.subprocess.PIPE
    )
    try:
        assert process.stderr is not None
        while (found := _DEVTOOLS.search(line := await process.stderr.readline())) is None:
            assert line, "Chromium has ended"
        async with aiohttp.ClientSession() as client, client.ws_connect(found[1].decode(), max_msg_size=0) as socket:
            page = Page(socket)
            await page.open()
            yield page
    finally:
        process.kill()
        await process.wait()
