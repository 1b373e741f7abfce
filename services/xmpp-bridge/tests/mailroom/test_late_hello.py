"""A module of the XMPP server that is loaded while the bridge is connected."""

import asyncio
from collections.abc import Iterable

from tlim_runtime.metrics import Metrics
from xmpp_bridge.attendance import Attendance
from xmpp_bridge.mailroom import Mailroom
from xmpp_bridge.presences import Came, Hello
from xmpp_bridge.translate import BridgeAddresses


class Line:
    """A server that takes everything over."""

    def send(self, stanzas: str) -> None: ...

    async def deliver(self, stanzas: Iterable[str]) -> None: ...

    async def barrier(self) -> None: ...


class Store:
    """Is not asked."""

    async def request(self, subject: str, payload: bytes, timeout_s: float = 2.0) -> bytes:
        raise AssertionError(subject, payload, timeout_s)


async def test_the_shard_is_begun_anew_because_it_has_no_term_to_write_notes_in() -> None:
    begun_anew = asyncio.Event()
    attendance, addresses = Attendance(), BridgeAddresses("im.example", "bridge.im.example")
    mailroom = Mailroom(
        Line(),
        Store(),
        addresses,
        Metrics(),
        shard=0,
        attendance=attendance,
        slots=asyncio.Semaphore(1),
        outdated=begun_anew.set,
    )
    mailroom.start()
    await mailroom.settled()
    for sign in (Hello(), Came("bob", "phone")):
        attendance.hear(sign)
        mailroom.hear(sign)
    assert begun_anew.is_set()
    assert mailroom.server_keeps, "until then all is as before"
    assert attendance.of(0) == [Hello(), Came("bob", "phone")]
    await mailroom.stop()
