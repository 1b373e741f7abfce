"""What is read after this process has hung waits until the server shows that the connection is still there.

While a bridge hangs, the XMPP server may end the connection. Then the senders go on over another bridge, and what the
server had written before is still in the socket. A bridge that published it when it wakes up would put it behind newer
messages of the same senders. They have got no answer to it, and send it again.
"""

import time
from collections.abc import Awaitable, Callable
from math import inf
from xml.etree.ElementTree import Element

from tlim_protocol.dead_letters import msg_id_in
from tlim_runtime.background import Repeated, Tasks
from tlim_runtime.logging import NAMED_IN_LOG, get_logger
from tlim_runtime.outages import Unavailable

logger = get_logger(__name__)

HUNG_S = 1.0
"""A process in which nothing ran for so long has hung. Before that no XMPP server gives a connection up."""

LOOK_S = 0.25
"""How often we look. Each message is a look as well."""

MOST_HELD = 10_000
"""Messages that wait. With more the connection is ended, and the senders send again."""


class Doubt:
    """Passes messages on, in order. Those that come while there is doubt wait for a ping's answer.

    The server answers on the same stream. Its answer says that the connection was there, so no sender has gone on over
    another bridge. If there is no answer, what waits is dropped.
    """

    def __init__(
        self,
        take: Callable[[Element], None],
        ping: Callable[[], Awaitable[None]],
        abort: Callable[[], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._take = take
        self._ping = ping
        self._abort = abort
        self._clock = clock
        self._ran_at = clock()
        self._held: list[Element] | None = None  # None: there is no doubt
        self._tasks = Tasks()
        self._looking = Repeated("doubt of the connection", self._look_again, LOOK_S)

    @property
    def is_open(self) -> bool:
        """Whether the process has hung, and the server has not answered since."""
        return self._held is not None or self._clock() - self._ran_at > HUNG_S

    def start(self) -> None:
        """Begin."""
        self._ran_at = self._clock()
        self._looking.start()

    async def stop(self) -> None:
        """Stop; nobody looks any more, so nothing is in doubt."""
        await self._looking.stop()
        self._ran_at = inf
        await self._tasks.close()

    def take(self, message: Element) -> None:
        """Pass a message on, or let it wait."""
        self._look()
        if self._held is None:
            self._take(message)
            return
        self._held.append(message)
        if len(self._held) >= MOST_HELD:
            self._abort()

    def connection_lost(self) -> None:
        """Drop what waits: it came over a connection that is no more."""
        dropped, self._held = self._held, None
        if dropped:
            msg_ids = [_msg_id_of(message) for message in dropped[:NAMED_IN_LOG]]  # their traces have not begun
            logger.warning(
                "messages were dropped: the bridge had hung, and was given up", messages=len(dropped), msg_ids=msg_ids
            )

    async def _look_again(self) -> None:
        self._look()

    def _look(self) -> None:
        now = self._clock()
        if now - self._ran_at > HUNG_S:
            self._held = list(self._held or ())  # an answer to an earlier ping says nothing of the time since
            self._tasks.start(self._settle(self._held), "a ping after a pause")
        self._ran_at = now

    async def _settle(self, held: list[Element]) -> None:
        try:
            await self._ping()
        except Unavailable:
            if self._held is held:
                self.connection_lost()
            return
        if self._held is held:
            self._held = None
            for message in held:
                self._take(message)


def _msg_id_of(message: Element) -> str | None:
    """Return the msg_id of a message as the XMPP server wraps it, None if its body has none."""
    return msg_id_in(next((body.text or "" for body in message.iterfind(".//{*}body")), ""))
