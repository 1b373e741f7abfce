"""How long reading takes in a store of a million messages, and in one of ten million.

    python bench/store_reading.py [--messages 1000000 10000000] [--keep DIRECTORY] [--repeat 30]

It makes a database for each size with the data of `reading_data.py`. Then it asks message-store over HTTP, without a
socket. For each question it prints the median and the 95th percentile in milliseconds, and the processor time of this
process and PostgreSQL together. Processor time depends less on what else the machine does; the last column shows how it
grows from the first size to the last. With --keep the databases stay in that directory, and existing ones are used
again. Ten million messages take about 20 minutes on two cores, and 25 GB on the disk.
"""

import argparse
import asyncio
import gc
import secrets
import signal
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import asyncpg
import httpx
from fastapi import Request
from message_store.app import create_app
from message_store.settings import Settings
from pydantic import SecretStr
from reading_data import COMMON, HEAVY, RARE, load
from tlim_admin.databases import owner_of
from tlim_devstack import postgres
from tlim_devstack.processes import ServerProcess
from tlim_devstack.waiting import free_port
from tlim_runtime.auth import CurrentUser, current_user
from tlim_runtime.database import Database
from tlim_runtime.migrations import upgrade

TUNED = (  # a usual set-up for a store of this size
    "shared_buffers=1GB", "effective_cache_size=4GB", "max_wal_size=16GB", "checkpoint_timeout=30min",
    "random_page_cost=1.1", "autovacuum=off",
)  # fmt: skip


class Ask(NamedTuple):
    """A question: its title, and for the n-th time it is asked, the user that asks and the path."""

    title: str
    who: Callable[[int], str]
    path: Callable[[int], str]


class Answers(NamedTuple):
    """What one question took: the milliseconds of each time, and the average processor time in milliseconds."""

    times: list[float]
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


async def measure(url: str, repeat: int, home: Path) -> dict[str, Answers]:
    """Return what every question took. Each is asked three times without counting, and then `repeat` times."""
    found: dict[str, Answers] = {}
    async with open_door(url) as client:
        for ask in questions(await landmarks(url)):
            for n in range(3):
                answer = await client.get(ask.path(n), headers={"X-User": ask.who(n)})
                answer.raise_for_status()
            times, cpu = [], -time.process_time() * 1000 - cpu_of_postgres(home)
            for n in range(3, repeat + 3):
                started = time.perf_counter()
                await client.get(ask.path(n), headers={"X-User": ask.who(n)})
                times.append((time.perf_counter() - started) * 1000)
            cpu += time.process_time() * 1000 + cpu_of_postgres(home)
            found[ask.title] = Answers(times, cpu / repeat)
    return found


def report(sizes: Sequence[int], results: Sequence[dict[str, Answers]]) -> None:
    """Print a table, ready to be put into a README."""
    heads = [f"{size / 1e6:g} M: median, p95, processor (ms)" for size in sizes]
    print("| question | " + " | ".join(heads) + " | growth |")
    print("|---|" + "---|" * (len(sizes) + 1))
    for title in results[0]:
        answers = [result[title] for result in results]
        cells = [
            f"{statistics.median(one.times):.1f}, {statistics.quantiles(one.times, n=20)[-1]:.1f}, {one.cpu:.1f}"
            for one in answers
        ]
        print(f"| {title} | {' | '.join(cells)} | {answers[-1].cpu / answers[0].cpu:.2f} |")


async def run(sizes: Sequence[int], home: Path, repeat: int) -> None:
    """Make, measure, print."""
    with running_postgres(home) as admin:
        urls = [await ready_database(admin, size) for size in sizes]
        report(sizes, [await measure(url, repeat, home) for url in urls])


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--messages", type=int, nargs="+", default=[1_000_000, 10_000_000])
    parser.add_argument("--keep", type=Path, help="where the databases stay")
    parser.add_argument("--repeat", type=int, default=30)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as passing:
        asyncio.run(run(arguments.messages, arguments.keep or Path(passing) / "bench", arguments.repeat))


if __name__ == "__main__":
    main()
