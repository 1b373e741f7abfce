"""HTTP: requests a second, beside a bare FastAPI and asyncpg endpoint that executes the same statements.

Four requests are on their way at a time. They go to the service itself, without the gateway. The reader has some
conversations with 100 messages each; a page has 50. A session that is added has ten people.
"""

import asyncio
import multiprocessing
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import httpx
from tlim_client.compose import text_message
from tlim_client.http import HttpClient
from tlim_client.xmpp import ServerAddress, XmppClient
from tlim_devstack.services import package_of
from tlim_devstack.stack import Stack
from tlim_runtime.driver_urls import driver_url

from bench.bare import running_bare, statements_of
from bench.comparing import Bars, Effort, Figure, Section, interleaved, percentile, prose, ratio, table
from bench.lanes import TEXT
from bench.stream import Account
from bench.systems import running_stack, tlim

AT_ONCE = 4
"""TLIM_REQUESTS_AT_ONCE_PER_USER has this default."""

PEERS, MESSAGES = 10, 100


@dataclass(frozen=True)
class Ask:
    """A request to a service, as a person."""

    service: str
    method: str
    path: str
    token: str
    body: Any = None

    def once(self, base: str) -> httpx.Response:
        """Ask once, and return the answer. Raises httpx.HTTPStatusError."""
        headers = {"Authorization": f"Bearer {self.token}"}
        answer = httpx.request(self.method, base + self.path, json=self.body, headers=headers, trust_env=False)
        return answer.raise_for_status()


@dataclass
class Answers:
    """What came of a run: requests a second, and the milliseconds of each."""

    rate: float = 0.0
    took: list[float] = field(default_factory=list)


def measure(effort: Effort, home: Path) -> Section:
    """Measure each request in turn with its bare endpoint."""
    with ExitStack() as opened:
        stack = opened.enter_context(running_stack(home / "tlim"))
        load = opened.enter_context(ProcessPoolExecutor(1, multiprocessing.get_context("spawn")))
        reader, *peers = tlim(stack).people(1 + PEERS)
        asks = questions(asyncio.run(fill(stack, reader, peers)), peers)
        found = {title: _compare(stack, ask, reader.user_id, effort, load) for title, ask in asks.items()}
    return Section("HTTP", f"{prose(__doc__)}\n\n{_table(found)}", _plot(found))


async def fill(stack: Stack, reader: Account, peers: list[Account]) -> str:
    """Let everybody write to the reader. Return the reader's token."""
    at = stack.addresses
    server = ServerAddress(at.xmpp_host, at.xmpp_port, at.domain, at.ca_file)
    for peer in peers:
        async with XmppClient(server, *peer) as device:
            for number in range(MESSAGES):
                device.send(text_message(peer.user_id, reader.user_id, f"{TEXT}{number}"))
            await device.send_until_stored(text_message(peer.user_id, reader.user_id, TEXT))
    async with HttpClient(at.gateway) as http:
        await http.log_in(*reader)
    assert http.token is not None
    return http.token


def questions(token: str, peers: list[Account]) -> Mapping[str, Ask]:
    """Return the requests that are measured."""
    users = [peer.user_id for peer in peers]
    return {
        "addSession": Ask(
            "session-api",
            "POST",
            "/v1/sessions",
            token,
            {"session_type": 1, "session_name": "bench", "subscribers": users},
        ),
        "history": Ask("message-store", "GET", f"/v1/conversations/{users[0]}/messages?limit=50", token),
        "sync": Ask("message-store", "GET", "/v1/sync?after=0&limit=50", token),
        "list of conversations": Ask("message-store", "GET", "/v1/conversations?limit=50", token),
    }


def _compare(
    stack: Stack, ask: Ask, user_id: str, effort: Effort, load: ProcessPoolExecutor
) -> dict[str, list[Answers]]:
    base = f"http://127.0.0.1:{stack.services.port(ask.service)}"
    ask.once(base)  # so that what the process remembers is there
    answers: list[httpx.Response] = []
    statements = statements_of(stack, lambda: answers.append(ask.once(base)), user_id)
    fresh = str(answers[0].json()["session_id"]) if ask.method == "POST" else ""
    package = package_of(ask.service)
    url = driver_url(stack.services.database(ask.service, package).url())
    with running_bare(url, statements, fresh) as bare:
        runs: dict[str, Callable[[], Answers]] = {
            "tlim": lambda: load.submit(flood, base + ask.path, ask, effort.seconds).result(),
            "bare": lambda: load.submit(flood, bare, ask, effort.seconds).result(),
        }
        return interleaved(effort.repeats, runs)


# --- in the load's process --------------------------------------------------------------------------------------------


def flood(url: str, ask: Ask, seconds: float) -> Answers:
    """Ask again and again, AT_ONCE at a time. Raises RuntimeError for a refusal."""
    try:
        return asyncio.run(_flood(url, ask, seconds))
    except ExceptionGroup as errors:
        raise RuntimeError(f"{url}: {errors.exceptions[0]}") from None  # aiohttp's own errors cannot leave a process


async def _flood(url: str, ask: Ask, seconds: float) -> Answers:
    answers = Answers()
    headers = {"Authorization": f"Bearer {ask.token}"}
    async with aiohttp.ClientSession(headers=headers, raise_for_status=True) as http:
        begun = time.perf_counter()

        async def again_and_again() -> None:
            while (sent := time.perf_counter()) < begun + seconds:
                async with http.request(ask.method, url, json=ask.body) as answer:
                    await answer.read()
                answers.took.append((time.perf_counter() - sent) * 1000)

        async with asyncio.TaskGroup() as group:
            for _ in range(AT_ONCE):
                group.create_task(again_and_again())
        answers.rate = len(answers.took) / (time.perf_counter() - begun)
    return answers


# --- what is told -----------------------------------------------------------------------------------------------------


def _table(found: Mapping[str, Mapping[str, list[Answers]]]) -> str:
    rows = []
    for title, systems in found.items():
        rates = {name: Figure.of(one.rate for one in runs) for name, runs in systems.items()}
        slower = Figure.of(
            ratio(bare.rate, own.rate) for own, bare in zip(systems["tlim"], systems["bare"], strict=True)
        )
        p95 = Figure.of(percentile(one.took, 95) for one in systems["tlim"])
        rows.append((title, rates["tlim"].told(), rates["bare"].told(), slower.told(2), p95.told(1)))
    return table(("request", "tlim, requests/s", "bare endpoint", "times slower", "tlim: p95, ms"), rows)


def _plot(found: Mapping[str, Mapping[str, list[Answers]]]) -> Bars:
    figures = {
        f"{title}, {name}": Figure.of(one.rate for one in runs)
        for title, systems in found.items()
        for name, runs in systems.items()
    }
    return Bars.of("requests/s", figures)
