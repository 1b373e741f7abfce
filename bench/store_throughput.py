"""How many messages message-store takes per second, on real PostgreSQL and NATS that sync as in production.

    python bench/store_throughput.py [--messages 20000]

It publishes accepted messages into TLIM_IN and starts message-store as its own process. It measures from the first
acknowledged message to the last; each is read, parsed, stored, published and acknowledged. The same run has a baseline
that no store can exceed: bare asyncpg inserts the same rows in batches of the same size. PostgreSQL, NATS and the store
share this machine. So the last line counts only the store's own processor time: what it could do on a core of its own.
"""

import argparse
import asyncio
import os
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import asyncpg
import nats
from tlim_devstack import postgres
from tlim_devstack.processes import ServerProcess
from tlim_devstack.servers import running_nats
from tlim_devstack.waiting import free_port
from tlim_protocol.envelope import Envelope
from tlim_protocol.events import AcceptedMessage, UserMeet, UsersKnown
from tlim_protocol.lenient import write_json
from tlim_protocol.registry import MsgType
from tlim_protocol.streams import STORE_INBOXES
from tlim_protocol.subjects import Rpc, subject_in
from tlim_runtime.broker import Broker, Outgoing
from tlim_runtime.migrations import upgrade
from tlim_runtime.provision import provision

USERS = 200
BATCH = 500

BASELINE = """
    INSERT INTO messages
        (seq, conversation_id, sender, recipient, audience, msg_id, msg_type, is_chat, version, body, msg_time,
         location, stored_at)
    SELECT nextval('message_seq'), conversation_id, sender, recipient, 1, msg_id, msg_type, true, '2.0.0', body::json,
           '1599218283837', 'web', 0
    FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[])
        AS new (conversation_id, sender, recipient, msg_id, msg_type, body)"""


@dataclass(frozen=True)
class Servers:
    """The addresses and passwords of the servers."""

    nats_url: str
    nats_passwords: dict[str, str]
    database_url: str

    @property
    def dsn(self) -> str:
        """The database as asyncpg wants it."""
        return self.database_url.replace("+asyncpg", "")


def message(number: int) -> AcceptedMessage:
    """Return one of many messages between many people."""
    sender, receiver = f"user{number % USERS}", f"user{number * 7 % USERS}"
    text = f"message number {number}: as long as people's messages are, which is about a hundred characters or so"
    envelope = Envelope(
        msg_from=sender,
        msg_to=receiver,
        msg_id=f"{number}-{secrets.token_hex(12)}",
        msg_type=MsgType.TEXT,
        msg_time="1599218283837",
        body=[{"text": text}],
    )
    return AcceptedMessage(
        sender=sender,
        reply_to=f"{sender}@im.example/web",
        stanza_id=f"s{number}",
        location="web",
        received_at=1_700_000_000_000,
        envelope=envelope,
    )


@contextmanager
def running_servers(home: Path) -> Iterator[Servers]:
    """Run NATS and a PostgreSQL that syncs every commit to disk, with message-store's tables."""
    home.chmod(0o755)  # PostgreSQL runs as another user when we are root
    data, port = home / "postgres", free_port()
    admin = postgres.Login("127.0.0.1", port, postgres.SUPERUSER, secrets.token_hex(16))
    data.mkdir()
    postgres.create_cluster(data / "data", admin.password)
    process = ServerProcess("PostgreSQL", postgres.command(data / "data", port), data / "log")
    try:
        process.wait_ready(lambda: postgres.answers(admin))
        passwords = {role: secrets.token_hex(16) for role in ("message_store", "message_store_owner")}
        postgres.create_roles(admin, passwords)
        postgres.create_database(admin, "message_store", "message_store")
        logins = {role: postgres.Login("127.0.0.1", port, role, passwords[role], "message_store") for role in passwords}
        upgrade("message_store", logins["message_store_owner"].url())
        with running_nats(home / "nats") as server:
            yield Servers(server.url, server.passwords, logins["message_store"].url())
    finally:
        process.stop(signal.SIGINT)


async def fill_inbox(servers: Servers, messages: list[AcceptedMessage]) -> Broker:
    """Provision NATS, answer in place of the users directory, and publish all messages.

    Returns the connection that answers for the directory.
    """
    client = await nats.connect(servers.nats_url, user="tests", password=servers.nats_passwords["tests"])
    await provision(client)
    await client.close()
    directory = await Broker.connect(
        servers.nats_url, "session-api", servers.nats_passwords["session-api"], "directory"
    )

    async def everybody(data: bytes) -> bytes:
        return UsersKnown(known=UserMeet.from_bytes(data).ask).to_bytes()

    await directory.respond(Rpc.USER_MEET, everybody, "session-api")
    bridge = await Broker.connect(servers.nats_url, "xmpp-bridge", servers.nats_passwords["xmpp-bridge"], "bridge")
    await bridge.publish_batch(
        [Outgoing(subject_in(MsgType.TEXT, one.envelope.conversation_id), one.to_bytes()) for one in messages]
    )
    await bridge.close()
    return directory


def start_store(servers: Servers, log: Path) -> subprocess.Popen[bytes]:
    """Start the service itself."""
    environment = {
        **os.environ,
        "TLIM_PORT": str(free_port()),
        "TLIM_NATS_URL": servers.nats_url,
        "TLIM_NATS_USER": "message-store",
        "TLIM_NATS_PASSWORD": servers.nats_passwords["message-store"],
        "TLIM_JWKS_URL": "http://jwks.invalid",
        "TLIM_DATABASE_URL": servers.database_url,
    }
    with log.open("wb") as output:
        return subprocess.Popen([sys.executable, "-m", "message_store"], env=environment, stdout=output, stderr=output)


@dataclass(frozen=True)
class Sample:
    """How far the store was at one moment, and how much processor time it had used."""

    at: float
    done: int
    cpu: float


def cpu_of(process: subprocess.Popen[bytes]) -> float:
    """Return the processor time of a running process in seconds (proc(5): utime and stime)."""
    fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def measure_store(servers: Servers, count: int, log: Path) -> tuple[Sample, Sample]:
    """Return a sample at the store's first acknowledgements, and one at its last."""
    watcher = await Broker.connect(servers.nats_url, "tests", servers.nats_passwords["tests"], "watcher")
    store = start_store(servers, log)
    first: Sample | None = None
    try:
        while True:
            consumers = [await watcher.api(f"CONSUMER.INFO.{one.stream}.{one.durable}") for one in STORE_INBOXES]
            if store.poll() is not None:
                raise SystemExit(f"message-store ended: see {log}")
            last = Sample(
                time.perf_counter(), sum(one["ack_floor"]["consumer_seq"] for one in consumers), cpu_of(store)
            )
            first = first or (last if last.done else None)
            if first is not None and last.done >= count:
                return first, last
            await asyncio.sleep(0.005)
    finally:
        store.terminate()
        store.wait()
        await watcher.close()


async def measure_baseline(servers: Servers, messages: list[AcceptedMessage]) -> float:
    """Return the seconds that bare asyncpg needs for the same rows."""
    connection = await asyncpg.connect(servers.dsn)
    rows = [
        (
            one.envelope.conversation_id, one.sender, one.envelope.msg_to, f"b{one.envelope.msg_id}",
            one.envelope.msg_type.value, write_json(one.envelope.body),
        )
        for one in messages
    ]  # fmt: skip
    started = time.perf_counter()
    for at in range(0, len(rows), BATCH):
        async with connection.transaction():
            await connection.execute(BASELINE, *(list(column) for column in zip(*rows[at : at + BATCH], strict=True)))
    seconds = time.perf_counter() - started
    await connection.close()
    return seconds


async def run(count: int) -> None:
    """Measure and print."""
    messages = [message(number) for number in range(count)]
    with tempfile.TemporaryDirectory() as home, running_servers(Path(home)) as servers:
        directory = await fill_inbox(servers, messages)
        first, last = await measure_store(servers, count, Path(home) / "store.log")
        await directory.close()
        baseline = await measure_baseline(servers, messages)
    done, seconds, cpu = last.done - first.done, last.at - first.at, last.cpu - first.cpu
    print(f"message-store  {done / seconds:8,.0f} messages/s         {done:,} in {seconds:.2f} s")
    print(f"bare asyncpg   {count / baseline:8,.0f} rows/s             {count:,} in {baseline:.2f} s")
    print(f"ratio          {done / seconds / (count / baseline):8.2f}")
    print(f"one core       {done / cpu:8,.0f} messages/s of cpu  {cpu / done * 1e6:.0f} µs each in the store itself")


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--messages", type=int, default=20_000)
    asyncio.run(run(parser.parse_args().messages))


if __name__ == "__main__":
    main()
