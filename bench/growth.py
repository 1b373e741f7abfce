"""Reading in a store of 10 thousand messages, of a million, and of ten million.

The data has conversations, groups, receipts and the search index as in real use. message-store is asked over HTTP,
without a socket. The cells hold the median in milliseconds, and the processor time of the store and PostgreSQL
together. `growth` is of processor time, from the smallest store to the largest. The reader has 1,500 conversations and
300 groups. `anybody` is another reader each time. Ten million messages take 20 minutes to make, and 25 GB on the disk.
"""

import asyncio
import gc
import secrets
import signal
import statistics
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import asyncpg
import httpx
from fastapi import Request
from message_store.app import create_app
from message_store.settings import Settings
from pydantic import SecretStr
from tlim_admin.databases import owner_of
from tlim_devstack import postgres
from tlim_devstack.processes import ServerProcess
from tlim_devstack.waiting import free_port
from tlim_runtime.auth import CurrentUser, current_user
from tlim_runtime.database import Database
from tlim_runtime.migrations import upgrade

from bench.comparing import Effort, Figure, Section, interleaved, prose, table
from bench.growth_data import COMMON, HEAVY, RARE, load

TUNED = (  # a usual set-up for a store of this size
    "shared_buffers=1GB", "effective_cache_size=4GB", "max_wal_size=16GB", "checkpoint_timeout=30min",
    "random_page_cost=1.1", "autovacuum=off",
)  # fmt: skip


SIZES = (10_000, 1_000_000, 10_000_000)
ASKED = 30


class Ask(NamedTuple):
    """A question: its title, and for the n-th time it is asked, the user that asks and the path."""

    title: str
    who: Callable[[int], str]
    path: Callable[[int], str]


class Answers(NamedTuple):
    """What one question took: the median, and the average processor time, in milliseconds."""

    median: float
    cpu: float


class Landmarks(NamedTuple):
    """Things in a store that questions can ask about."""

    newest: int
    month_ago: int
    direct: Sequence[str]  # users that `heavy` talks with
    groups: Sequence[str]  # groups of `heavy`
    msg_ids: Sequence[tuple[str, str]]  # msg_id and sender of messages to `heavy`


@contextmanager
def running_postgres(home: Path) -> Iterator[postgres.Login]:
    """Run a PostgreSQL in `home`, with the data that is there."""
    home.mkdir(exist_ok=True, parents=True)
    home.chmod(0o755)  # PostgreSQL runs as another user when we are root
    secret = home / "password"
    if not secret.exists():
        secret.write_text(secrets.token_hex(16))
        (home / "postgres").mkdir()
    port = free_port()
    admin = postgres.Login("127.0.0.1", port, postgres.SUPERUSER, secret.read_text())
    postgres.create_cluster(home / "postgres" / "data", admin.password)
    process = ServerProcess("PostgreSQL", postgres.command(home / "postgres" / "data", port, *TUNED), home / "log")
    try:
        process.wait_ready(lambda: postgres.answers(admin))
        roles = ("message_store", owner_of("message_store"))
        postgres.create_roles(admin, dict.fromkeys(roles, admin.password))
        yield admin
    finally:
        process.stop(signal.SIGINT)


async def ready_database(admin: postgres.Login, messages: int) -> str:
    """Return the URL of a database with that many messages. It is made if it is not there yet."""
    name = f"reading_{messages}"
    url = postgres.Login(admin.host, admin.port, "message_store", admin.password, name).url()
    if postgres.database_exists(admin, name):
        return url
    print(f"making {messages:,} messages", flush=True)
    postgres.create_database(admin, f"{name}_part", "message_store")
    owner = postgres.Login(admin.host, admin.port, owner_of("message_store"), admin.password, f"{name}_part")
    upgrade("message_store", owner.url())
    connection = await asyncpg.connect(owner.url().replace("+asyncpg", ""))
    await load(connection, messages)
    await connection.close()
    postgres.run_sql(admin, f"ALTER DATABASE {name}_part RENAME TO {name}; CHECKPOINT;")
    return url


async def landmarks(url: str) -> Landmarks:
    """Find the things in a database that questions can ask about."""
    connection = await asyncpg.connect(url.replace("+asyncpg", ""))
    newest = await connection.fetchval("SELECT last_value FROM message_seq")
    mine = await connection.fetch(
        "SELECT conversation_id FROM members JOIN conversations USING (conversation_id)"
        " WHERE user_id = $1 ORDER BY last_seq DESC", HEAVY
    )  # fmt: skip
    ids = await connection.fetch(
        "SELECT msg_id, sender FROM messages WHERE recipient = $1 AND is_chat ORDER BY seq DESC LIMIT 100", HEAVY
    )
    await connection.close()
    groups = [row[0] for row in mine if not row[0].startswith("u:")]
    direct = [row[0].removeprefix("u:").replace(HEAVY, "").strip(":") for row in mine if row[0].startswith("u:")]
    return Landmarks(newest, newest - newest // 12, direct, groups, [(row[0], row[1]) for row in ids])


def questions(marks: Landmarks) -> list[Ask]:
    """Return the questions."""

    def heavy(_: int) -> str:
        return HEAVY

    def anybody(n: int) -> str:
        return f"user{1 + n * 611 % 19_000}"

    def ledger(n: int) -> str:
        msg_id, sender = marks.msg_ids[n % len(marks.msg_ids)]
        return f"/messages/{msg_id}?sender={sender}"

    third = marks.newest // 3
    return [
        Ask("history, newest page", heavy, lambda n: f"/conversations/{marks.direct[n]}/messages"),
        Ask("history, far back", heavy, lambda n: f"/conversations/{marks.direct[n]}/messages?before={third}"),
        Ask("history of a group", heavy, lambda n: f"/conversations/{marks.groups[n]}/messages"),
        Ask("sync, fresh device", heavy, lambda _: "/sync?after=0"),
        Ask("sync, away for a month", heavy, lambda n: f"/sync?after={marks.month_ago + n}"),
        Ask("sync, nothing new", heavy, lambda n: f"/sync?after={marks.newest - n}"),
        Ask("sync, away for a month, anybody", anybody, lambda n: f"/sync?after={marks.month_ago + n}"),
        Ask("conversations and unread", heavy, lambda _: "/conversations"),
        Ask("conversations and unread, anybody", anybody, lambda _: "/conversations"),
        Ask("a message and its ledger", heavy, ledger),
        Ask("search, a common word", heavy, lambda _: f"/search?q={COMMON}"),
        Ask("search, a rare word", heavy, lambda _: f"/search?q={RARE}"),
        Ask("search, what is nowhere", heavy, lambda _: "/search?q=今天xyzzy"),
        Ask("search, one character", heavy, lambda _: "/search?q=鑰"),
        Ask("search, in a conversation", heavy, lambda n: f"/search?q={COMMON}&conversation={marks.direct[n]}"),
        Ask("search, a common word, anybody", anybody, lambda _: f"/search?q={COMMON}"),
        Ask("search, a rare word, anybody", anybody, lambda _: f"/search?q={RARE}"),
    ]


@asynccontextmanager
async def open_door(url: str) -> AsyncIterator[httpx.AsyncClient]:
    """Give an HTTP client of message-store's application. A header names the user instead of a token."""
    unused: dict[str, Any] = {"port": 0, "nats_url": "", "nats_user": "", "nats_password": SecretStr("")}
    app = create_app(Settings(database_url=SecretStr(url), jwks_url="", **unused))

    async def who(request: Request) -> CurrentUser:
        return CurrentUser(request.headers["X-User"], frozenset())

    app.dependency_overrides[current_user] = who
    app.state.database = Database(url, 4)
    gc.collect()
    gc.freeze()  # as the service does when it has started
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://store/v1") as client:
        yield client
    await app.state.database.close()


def cpu_of_postgres(home: Path) -> float:
    """Return the milliseconds of processor time that the server's processes have used (sched(7), schedstat)."""
    server = (home / "postgres" / "data" / "postmaster.pid").read_text().split()[0]
    children = Path(f"/proc/{server}/task/{server}/children").read_text().split()
    return sum(int(Path(f"/proc/{child}/schedstat").read_text().split()[0]) for child in children) / 1e6


async def ask_all(url: str, home: Path) -> dict[str, Answers]:
    """Return what every question took. Each is asked three times without counting, and then ASKED times."""
    found: dict[str, Answers] = {}
    async with open_door(url) as client:
        for ask in questions(await landmarks(url)):
            for n in range(3):
                answer = await client.get(ask.path(n), headers={"X-User": ask.who(n)})
                answer.raise_for_status()
            times, cpu = list[float](), -time.process_time() * 1000 - cpu_of_postgres(home)
            for n in range(3, ASKED + 3):
                started = time.perf_counter()
                await client.get(ask.path(n), headers={"X-User": ask.who(n)})
                times.append((time.perf_counter() - started) * 1000)
            cpu += time.process_time() * 1000 + cpu_of_postgres(home)
            found[ask.title] = Answers(statistics.median(times), cpu / ASKED)
    return found


def measure(effort: Effort, home: Path) -> Section:
    """Make the stores, and ask them in turn."""
    sizes = SIZES if effort.seconds >= 5 else SIZES[:1]  # less is only a proof that the bench runs
    with running_postgres(home) as admin:
        urls = {f"{size:,}": asyncio.run(ready_database(admin, size)) for size in sizes}
        runs = {size: lambda url=url: asyncio.run(ask_all(url, home)) for size, url in urls.items()}
        found = interleaved(effort.repeats, runs)
    return Section("Growth", f"{prose(__doc__)}\n\n{_table(found)}")


def _table(found: Mapping[str, Sequence[dict[str, Answers]]]) -> str:
    smallest, *_, largest = (*found.values(), *found.values())
    rows = []
    for title in smallest[0]:
        cells = [_cell([run[title] for run in runs]) for runs in found.values()]
        growth = Figure.of(big[title].cpu / small[title].cpu for small, big in zip(smallest, largest, strict=True))
        rows.append((title, *cells, growth.told(2)))
    return table(("question", *(f"{size}: ms; processor, ms" for size in found), "growth"), rows)


def _cell(answers: Sequence[Answers]) -> str:
    times, cpu = (Figure.of(values) for values in zip(*answers, strict=True))
    return f"{times.told(1)}; {cpu.told(1)}"
