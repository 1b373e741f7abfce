"""Who is there: what the XMPP server's module has said on this connection, about the people of all shards.

Every bridge hears everything. So a bridge that takes over a shard knows at once who is there.
"""

import time
from collections.abc import Callable

from tlim_protocol.identity import delivery_shard

from xmpp_bridge.presences import Came, Gone, Hello, Missed, Sign, Stale

MISSED_WITHIN_S = 30.0
"""The bridge that had a shard before may have died before it noted a message that reached nobody. It was taken over
within seconds, and then the log has to answer. Such messages are remembered for this time at least."""

MAX_SESSIONS = 100
"""Sessions of one person that are remembered. The servers of deploy/ allow 20."""


def keep_oldest(missed: dict[str, int], user_id: str, seq: int) -> None:
    """Note that a message reached nobody, if it is the oldest one of its person."""
    missed[user_id] = min(seq, missed.get(user_id, seq))


class Attendance:
    """The sessions of all people, and the messages that reached nobody lately."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._people: dict[str, dict[str, Came | Stale]] = {}
        self._missed: dict[str, int] = {}  # by person, the oldest seq
        self._missed_before: dict[str, int] = {}  # the same, of the time before `began`
        self._began = clock()
        self.is_kept = False
        """Whether the server's module speaks of sessions. Otherwise the server keeps what is for people who are away"""

    @property
    def present(self) -> int:
        """How many people have a session."""
        return len(self._people)

    def clear(self) -> None:
        """Forget who is there: the connection to the XMPP server is lost, and the next one begins with a hello.

        What reached nobody is still true: its note may be what was lost.
        """
        self._people.clear()
        self.is_kept = False

    def hear(self, sign: Sign) -> None:
        """Learn what the server's module says. It speaks of sessions after its hello: before, it may be a client.

        What reached nobody counts always. A session that ends may say it just before the hello.
        """
        if isinstance(sign, Hello):
            self.is_kept = True
        elif self.is_kept or isinstance(sign, Missed):
            self._hear(sign)

    def _hear(self, sign: Came | Stale | Gone | Missed) -> None:
        match sign:
            case Came(user_id, session_id) | Stale(user_id, session_id, _):
                sessions = self._people.setdefault(user_id, {})
                if session_id in sessions or len(sessions) < MAX_SESSIONS:
                    sessions[session_id] = sign
            case Gone(user_id, session_id, _):
                sessions = self._people.get(user_id, {})
                if sessions.pop(session_id, None) is not None and not sessions:
                    del self._people[user_id]
            case Missed(user_id, seq):
                self._forget_old()
                keep_oldest(self._missed, user_id, seq)

    def of(self, shard: int) -> list[Sign]:
        """Return signs that say who is there now, of the people of one shard."""
        people = [sessions for user_id, sessions in self._people.items() if delivery_shard(user_id) == shard]
        hello: list[Sign] = [Hello()] if self.is_kept else []
        return hello + [sign for sessions in people for sign in sessions.values()]

    def missed(self, shard: int) -> list[Missed]:
        """Return the oldest message that reached nobody lately, for each of the people of one shard."""
        self._forget_old()
        both = (*self._missed_before.items(), *self._missed.items())
        oldest: dict[str, int] = {}
        for user_id, seq in both:
            if delivery_shard(user_id) == shard:
                keep_oldest(oldest, user_id, seq)
        return [Missed(user_id, seq) for user_id, seq in oldest.items()]

    def _forget_old(self) -> None:
        now = self._clock()
        if now - self._began < MISSED_WITHIN_S:
            return
        is_recent = now - self._began < 2 * MISSED_WITHIN_S
        self._missed_before, self._missed, self._began = self._missed if is_recent else {}, {}, now
