"""The rules of the users directory: which users are known, and how users are imported. No SQL, no HTTP, no NATS."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass

from tlim_protocol.characters import is_plain_text
from tlim_protocol.errors import ErrorCode, TlimError, quoted
from tlim_protocol.events import AuditAction, UserMeet, UsersDeactivated, UsersKnown
from tlim_protocol.identity import normalize_user_id
from tlim_protocol.names import checked_name

from session_api.audit import Admin, AuditService
from session_api.clock import Clock, now_ms
from session_api.errors import RowsRefusedError
from session_api.models import User
from session_api.users_repository import UserRepository

MAX_DEACTIVATED = 10_000
"""How many deactivated users the services hear of: with ids of 64 bytes that is 640 KB every 10 s for each service. Our
own tokens end within an hour, and in an hour nobody deactivates so many. An external issuer may go on giving tokens to
the others, so /readyz warns at this number."""


def user_ids(raw: Iterable[str]) -> tuple[str, ...]:
    """Return ids in the form in which XMPP compares them, each once, in the order given.

    Raises USER_UNKNOWN for a blank id, FIELD_INVALID for a text that cannot be an id.
    """
    return tuple(dict.fromkeys(user_id(one) for one in raw))


def user_id(raw: str) -> str:
    """Return one id in the form in which XMPP compares it; raises what `user_ids` raises."""
    if not raw.strip():
        raise TlimError(ErrorCode.USER_UNKNOWN, "a user_id is blank", field="user_id")
    return normalize_user_id(raw)


@dataclass(frozen=True, slots=True)
class Person:
    """A user to import; without a name, the id is used as the name."""

    user_id: str
    name: str | None = None


@dataclass(frozen=True, slots=True)
class Imported:
    """The result of an import, in numbers of users."""

    created: int
    updated: int


def checked_person(person: Person) -> tuple[str, str]:
    """Return normalised id and name of one person; raises USER_UNKNOWN for a blank id, FIELD_INVALID."""
    checked_id = user_id(person.user_id)
    return checked_id, checked_id if person.name is None else checked_name(person.name, field="name")


def checked_people(people: Sequence[Person]) -> dict[str, str]:
    """Return id -> name of all rows, normalised; raises RowsRefusedError with every bad row."""
    names: dict[str, str] = {}
    refused: list[tuple[int, TlimError]] = []
    for place, person in enumerate(people):
        try:
            checked_id, name = checked_person(person)
        except TlimError as error:
            refused.append((place, error))
            continue
        if checked_id in names:
            refused.append((place, _comes_twice(checked_id)))
        names[checked_id] = name
    if refused:
        raise RowsRefusedError(refused)
    return names


def _comes_twice(checked_id: str) -> TlimError:
    return TlimError(ErrorCode.FIELD_INVALID, f"user_id {quoted(checked_id)} comes twice", field="user_id")


class UserService:
    """The rules of the directory, for its doors; the caller's transaction commits changes and audit entries."""

    def __init__(self, users: UserRepository, audit: AuditService, clock: Clock = now_ms) -> None:
        self._users = users
        self._audit = audit
        self._clock = clock

    async def put(self, admin: Admin, person: Person) -> User:
        """Import one person: create, rename or activate again. Raises USER_UNKNOWN or FIELD_INVALID."""
        checked_id, name = checked_person(person)
        created = await self._users.upsert({checked_id: name}, self._clock())
        await self._audit.note(admin, AuditAction.USER_PUT, checked_id, {"name": name, "created": bool(created)})
        return await self._users.get(checked_id)

    async def put_many(self, admin: Admin, people: Sequence[Person]) -> Imported:
        """Import people, all or none; raises RowsRefusedError."""
        names = checked_people(people)
        created = await self._users.upsert(names, self._clock())
        done = Imported(created=created, updated=len(names) - created)
        await self._audit.note(admin, AuditAction.USERS_IMPORTED, detail=asdict(done))
        return done

    async def search(self, prefix: str, after: str, limit: int) -> Sequence[User]:
        """Return up to `limit` users with an id above `after` whose id or name starts with `prefix`, ordered by id."""
        if not is_plain_text(prefix):
            raise TlimError(ErrorCode.FIELD_INVALID, "prefix holds a control character", field="prefix")
        return await self._users.search(prefix, after, limit)

    async def deactivated(self) -> UsersDeactivated:
        """Return the users that were deactivated last, at most MAX_DEACTIVATED."""
        return UsersDeactivated(users=list(await self._users.deactivated(MAX_DEACTIVATED)))

    async def meet(self, question: UserMeet) -> UsersKnown:
        """Note the users that another service saw, then tell which of the users it asks about are known."""
        await self._users.meet(question.seen, self._clock())
        known = await self._users.names_of_known(question.ask)
        return UsersKnown(known=list(known))
