"""How many messages a second one bridge process can translate: `python bench/bridge_throughput.py [count]`.

It measures only the bridge's own work. On the way in, that is to parse the component's stream, to check trust rules and
messages, and to build what is published. On the way out, it is to build the stanzas. There is no socket, and a fake
JetStream acknowledges at once.
"""

import asyncio
import sys
import time

from tlim_protocol.envelope import Envelope, write_envelope
from tlim_protocol.events import StoredMessage, read_out_event
from tlim_protocol.registry import MsgType
from tlim_runtime.broker import PubAck
from tlim_runtime.metrics import Metrics
from tlim_runtime.throttle import Throttle
from tlim_runtime.tracing import Headers
from xmpp_bridge.pace import SenderPace
from xmpp_bridge.service import MessageIntake
from xmpp_bridge.translate import Accept, BridgeAddresses, write_event
from xmpp_bridge.wire import Wire

DOMAIN = "im.itonglian.com"
ADDRESSES = BridgeAddresses(DOMAIN, f"bridge.{DOMAIN}")
READ_BYTES = 64 * 1024


class InstantPublisher:
    """Acknowledges every message in the next turn of the loop."""

    def publish_soon(self, subject: str, payload: bytes, *, headers: Headers) -> asyncio.Future[PubAck]:
        del subject, payload, headers
        future: asyncio.Future[PubAck] = asyncio.get_running_loop().create_future()
        future.set_result(PubAck(stream="TLIM_IN", seq=1))
        return future


class NoDoor:
    """Stands for the component's connection. There is no socket to pause."""

    is_in_doubt = False

    def send(self, stanzas: str) -> None:
        raise RuntimeError(f"nothing should be refused here: {stanzas}")

    def pause(self) -> None: ...
    def resume(self) -> None: ...
    def abort(self) -> None: ...


def envelope(number: int) -> Envelope:
    """Return a short text as people write it."""
    body = [{"text": "今天下午三点开会 😀 please bring the quarterly figures"}]
    return Envelope(
        msg_from=f"user{number % 500}",
        msg_to=f"user{number % 499}",
        msg_id=f"fd6c568e-19ca-4e4e-9709-{number:012}",
        msg_type=MsgType.TEXT,
        msg_time="1599218283837",
        body=body,
    )


def diverted(number: int) -> str:
    """Return the stanza as ejabberd and our module send it, about 800 bytes."""
    text = write_envelope(envelope(number)).replace("&", "&amp;").replace("<", "&lt;").replace('"', "&quot;")
    return (
        f"<message from='{DOMAIN}' to='{ADDRESSES.component}'><forwarded xmlns='urn:xmpp:forward:0'>"
        f"<message xmlns='jabber:client' xml:lang='en' from='user{number % 500}@{DOMAIN}/phone' "
        f"to='user{number % 499}@{DOMAIN}' id='s{number}' type='chat'><body>{text}</body>"
        f"<tlim xmlns='{DOMAIN}' location='mobile'/></message></forwarded></message>"
    )


async def inbound(count: int) -> float:
    """Return messages per second on the way in: from the bytes of the socket to the call that publishes."""
    unlimited = Throttle("999999999/second", "user")
    pace = SenderPace(messages=unlimited, receipts=unlimited, sizes=unlimited, deliveries=unlimited)
    inbox = MessageIntake(
        ADDRESSES,
        InstantPublisher(),
        NoDoor(),
        Metrics(),
        pace=pace,
        in_flight_limit=1_000_000,
        accept=Accept.DIVERTED,
        is_deactivated=frozenset().__contains__,
        via="this bridge",
    )
    wire = Wire(ADDRESSES.component, "secret", "127.0.0.1", 1, inbox.take)
    wire.init_parser()
    data = "".join(diverted(number) for number in range(count)).encode()
    wire.data_received(
        "<stream:stream xmlns='jabber:component:accept' xmlns:stream='http://etherx.jabber.org/streams'>"
    )
    started = time.perf_counter()
    for position in range(0, len(data), READ_BYTES):
        wire.data_received(data[position : position + READ_BYTES])
        await asyncio.sleep(0)
    await inbox.drained()
    return count / (time.perf_counter() - started)


def outbound(count: int) -> float:
    """Return messages per second on the way out: from the event of NATS to the stanzas."""
    events = [
        StoredMessage(
            seq=number,
            stored_at=1_599_218_283_837,
            recipients=["bob"],
            envelope=envelope(number),
            reply_to=f"alice@{DOMAIN}/phone",
            stanza_id=f"s{number}",
        ).to_bytes()
        for number in range(count)
    ]
    started = time.perf_counter()
    written = sum(len("".join(write_event(read_out_event(event), ADDRESSES, Accept.DIVERTED))) for event in events)
    assert written > count
    return count / (time.perf_counter() - started)


if __name__ == "__main__":
    messages = int(sys.argv[1]) if len(sys.argv) > 1 else 20_000
    print(f"in:  {asyncio.run(inbound(messages)):8,.0f} messages/s")
    print(f"out: {outbound(messages):8,.0f} messages/s (one delivery and one `stored` each)")
