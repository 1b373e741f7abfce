"""Who is present, and who has caught up: this decides to whom a live delivery goes.

    away ──came──► waiting ──catch-up──► live ──all gone──► away

Deliveries for somebody who is not live are skipped. That loses nothing: the log has them, and the number in the
person's mailbox is smaller than they are (docs/decisions/mailbox.md). A device that sends one presence after another
costs nothing: only the first session of a person begins a catch-up.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from tlim_protocol.mailboxes import MailboxNote

from xmpp_bridge.attendance import MAX_SESSIONS
from xmpp_bridge.component import ComponentDown
from xmpp_bridge.presences import Came, Gone, Hello, Missed, Sign, Stale

_UNKNOWN = 2**63
"""More than any seq. Nobody remembers how much went to the older sessions before the connection was lost."""

FIRST_PAUSE_S = 0.5
LONGEST_PAUSE_S = 60.0


@dataclass(slots=True)
class _Session:
    since: int  # everything for the person behind this seq goes to the session; 0: all that is in the mailbox
    is_stale: bool = False


@dataclass(slots=True)
class Attendee:
    """A person with at least one session. `sent` is the highest seq that was sent since the first of them came."""

    sessions: dict[str, _Session] = field(default_factory=dict)
    is_live: bool = False
    sent: int = 0
    skipped: int = 0  # the highest seq that the live path has left to the catch-up
    taken: int = 0  # up to here the devices have confirmed everything; 0: what the mailbox says
    misses: int = 0  # how often in a row what was sent has reached none of the sessions
    is_served: bool = False  # the catch-up is being worked on

    def covers(self) -> list[str]:
        """Return the sessions that get everything which is in the mailbox or comes behind it."""
        return [name for name, session in self.sessions.items() if session.since <= self.taken and not session.is_stale]

    @property
    def is_reachable(self) -> bool:
        """Whether there is a session that has not lost its network."""
        return any(not session.is_stale for session in self.sessions.values())

    def anew(self) -> "Attendee":
        """Return the person with the same sessions, before a catch-up of all of them."""
        sessions = {name: _Session(since=0, is_stale=one.is_stale) for name, one in self.sessions.items()}
        return Attendee(sessions, misses=self.misses)


class Roll:
    """The people with sessions. `waiting` gets each person whose catch-up has to begin, and a pause in seconds.

    `note` gets what message-store must know about mailboxes, in the order in which it became true. `bound` is given
    what a device has confirmed, and returns up to which seq that means that nothing is missing (lanes.Gaps).
    """

    def __init__(
        self,
        waiting: Callable[[str, float], None],
        note: Callable[[MailboxNote], None],
        bound: Callable[[int], int] = lambda seq: seq,
    ) -> None:
        self._waiting = waiting
        self._note = note
        self._bound = bound
        self._people: dict[str, Attendee] = {}
        self._is_settled = False
        self.is_kept = False
        """Whether the server's module speaks of sessions. Until then everything is sent to everybody."""

    @property
    def present(self) -> int:
        """How many people have a session."""
        return len(self._people)

    def settle(self, live: Mapping[str, Iterable[str]]) -> None:
        """Begin, when the server has said who is present. `live` is who was live before, and in which sessions.

        Whoever is still there in one of those sessions goes on where they were. The others catch up. So does somebody
        whose only session with a network is a new one.
        """
        for user_id, sessions in live.items():
            person = self._people.get(user_id)
            if person is not None and not person.sessions.keys().isdisjoint(sessions):
                person.is_live, person.sent = True, _UNKNOWN
                for name in person.sessions.keys() - set(sessions):
                    person.sessions[name].since = _UNKNOWN
                if person.is_reachable and not person.covers():
                    self._people[user_id] = person.anew()
                self._note(MailboxNote(user_id=user_id, sessions=person.covers()))
            else:
                self._note(MailboxNote(user_id=user_id))
        self._is_settled = True
        for user_id, person in self._people.items():
            if not person.is_live and person.is_reachable:
                self._waiting(user_id, 0)

    def hear(self, sign: Sign) -> None:
        """Learn what the server's module says. Without a module a client may say anything of itself (presences.py)."""
        if isinstance(sign, Hello):
            self.is_kept = True
        elif self.is_kept:
            self._hear(sign)

    def _hear(self, sign: Came | Stale | Gone | Missed) -> None:
        match sign:
            case Came(user_id, session_id):
                self._came(user_id, session_id)
            case Stale(user_id, session_id, confirmed):
                self._stale(user_id, session_id, confirmed)
            case Gone(user_id, session_id, confirmed):
                self._gone(user_id, session_id, confirmed)
            case Missed(user_id, seq):
                self._missed(user_id, seq)

    def is_due(self, user_id: str, seq: int) -> bool:
        """Whether a live delivery goes to the person. If not, it is or will be in the catch-up.

        Raises ComponentDown while nobody knows who is present.
        """
        if not self._is_settled:
            raise ComponentDown("the XMPP server has not said who is present")
        if not self.is_kept:
            return True
        person = self._people.get(user_id)
        if person is None:
            return False
        if not person.is_live:
            person.skipped = max(person.skipped, seq)
            return False
        if seq <= person.skipped:  # came with the catch-up
            return False
        person.sent = max(person.sent, seq)
        return True

    def catching_up(self, user_id: str) -> Attendee | None:
        """Return the person if there is a catch-up to do."""
        person = self._people.get(user_id)
        return person if person is not None and not person.is_live else None

    def is_waiting(self, user_id: str, person: Attendee) -> bool:
        """Whether this catch-up still has somebody to go to."""
        return self._people.get(user_id) is person and not person.is_live

    def go_live(self, user_id: str, person: Attendee, up_to: int) -> bool:
        """Deliver to the person directly from now on, if the catch-up had everything: it went up to the seq `up_to`.

        Return whether the person is live. If not, something newer was skipped meanwhile, or nobody is there any more.
        """
        if not self.is_waiting(user_id, person) or person.skipped > up_to:
            return False
        person.is_live = True
        person.skipped = up_to
        return True

    def note_live(self, user_id: str, person: Attendee) -> None:
        """Have it noted that the person is live, when the server has taken over the whole catch-up."""
        if self._people.get(user_id) is person and person.is_live:
            if person.sent:  # it has reached a session
                person.misses = 0
            self._note(MailboxNote(user_id=user_id, sessions=person.covers(), is_new=True))

    def _came(self, user_id: str, session_id: str) -> None:
        person = self._people.get(user_id)
        if person is None:
            person = self._people[user_id] = Attendee()
            person.sessions[session_id] = _Session(since=0)
            if self._is_settled:
                self._waiting(user_id, 0)
            return
        session = person.sessions.get(session_id)
        if session is not None and not session.is_stale:
            return
        if session is not None:
            session.is_stale = False
            is_new = True
        elif len(person.sessions) < MAX_SESSIONS:
            session = person.sessions[session_id] = _Session(since=person.sent)
            is_new = False
        else:
            return
        if not person.covers():  # the other sessions have lost their network, and may have what this one lacks
            self._rely_on_the_rest(user_id, person)
        elif not person.is_live and (is_new or person.misses) and self._is_settled:  # or it would wait for a pause
            self._waiting(user_id, 0)
        elif person.is_live and session.since <= person.taken:
            self._note(MailboxNote(user_id=user_id, sessions=person.covers(), is_new=is_new))

    def _stale(self, user_id: str, session_id: str, confirmed: int | None) -> None:
        if not self._is_settled:  # it lost its network before this connection to the server began
            self._people.setdefault(user_id, Attendee()).sessions.setdefault(session_id, _Session(since=0))
        person = self._people.get(user_id)
        session = person.sessions.get(session_id) if person else None
        if person is None or session is None:
            return
        session.is_stale = True
        self._confirm(person, session, confirmed)
        if person.is_reachable:
            self._rely_on_the_rest(user_id, person)
        elif person.is_live:
            stale = list(person.sessions)
            self._note(MailboxNote(user_id=user_id, sessions=stale, is_stale=True, taken=person.taken or None))

    def _gone(self, user_id: str, session_id: str, confirmed: int | None) -> None:
        person = self._people.get(user_id)
        session = person.sessions.pop(session_id, None) if person else None
        if person is None or session is None:
            return
        self._confirm(person, session, confirmed)
        if not person.sessions:
            del self._people[user_id]
            if person.is_live or person.taken:
                self._note(MailboxNote(user_id=user_id, taken=None if confirmed is None else person.taken or None))
        else:
            self._rely_on_the_rest(user_id, person)

    def _rely_on_the_rest(self, user_id: str, person: Attendee) -> None:
        if not self._is_settled:  # then `settle` looks at who is there
            return
        covering = person.covers()
        if not covering:
            # What another session had not confirmed, or nobody knows whether it had, these lack: they came later.
            self._note(MailboxNote(user_id=user_id, taken=person.taken or None))
            self._begin_again(user_id, person, pause_s=0)
        elif person.is_live:
            self._note(MailboxNote(user_id=user_id, sessions=covering))

    def _confirm(self, person: Attendee, session: _Session, confirmed: int | None) -> None:
        # A session that came later lacks what went only to the others before. If they have not confirmed that, its own
        # confirmation does not mean that the person has everything. Nor does it when the server has moved a message
        # to it, from a session that ended, which the catch-up has not reached.
        is_known = confirmed is not None and (person.is_live or confirmed <= person.sent)
        if confirmed is not None and is_known and session.since <= person.taken:
            person.taken = max(person.taken, self._bound(confirmed))

    def _missed(self, user_id: str, seq: int) -> None:
        person = self._people.get(user_id)
        self._note(MailboxNote(user_id=user_id, taken=(person and person.taken) or None, at_most=seq - 1))
        if person is None:
            return
        # The sessions have probably gone, and the server is about to say so. If one is still there, it needs what was
        # missed. The pauses grow, because a session that gets nothing must not keep us busy.
        if person.is_live or person.sent:  # otherwise it was sent with what has been missed already
            person.misses += 1
        self._begin_again(user_id, person, min(FIRST_PAUSE_S * 2 ** min(person.misses, 10), LONGEST_PAUSE_S))

    def _begin_again(self, user_id: str, person: Attendee, pause_s: float) -> None:
        self._people[user_id] = person.anew()
        self._waiting(user_id, pause_s)
