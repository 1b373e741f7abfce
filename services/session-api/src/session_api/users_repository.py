"""All SQL of the users directory."""

from collections.abc import Iterable, Mapping, Sequence

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY, Insert, insert
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from session_api.models import SessionTable, User

_TEXTS = ARRAY(sa.Text)

_WAS_CREATED = sa.literal_column("(users.xmax = 0)", sa.Boolean)
"""True for a created row, False for an updated one: only a new row has no deleting or locking transaction (xmax)."""

_USERS = SessionTable.metadata.tables[User.__tablename__]

_NAMES_OF_KNOWN = sa.select(_USERS.c.user_id, _USERS.c.name).where(
    _USERS.c.user_id == sa.any_(sa.bindparam("ids", type_=_TEXTS)), _USERS.c.active
)


class UserRepository:
    """Questions about users, in the caller's transaction; a list of any length is sent as one array."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def meet(self, ids: Iterable[str], at: int) -> None:
        """Create the users who do not exist yet, with their id as name; existing users do not change."""
        rows = _rows({one: one for one in ids}, at)
        await self._session.execute(_insert_users(rows).on_conflict_do_nothing())

    async def upsert(self, names: Mapping[str, str], at: int) -> int:
        """Create, rename and activate users (id -> name); return how many were created."""
        statement = _insert_users(_rows(names, at))
        new = statement.excluded
        statement = statement.on_conflict_do_update(
            index_elements=[col(User.user_id)], set_={"name": new.name, "active": True, "modified_at": new.modified_at}
        )
        return sum(await self._session.scalars(statement.returning(_WAS_CREATED)))

    async def merge(self, names: Mapping[str, str | None], at: int) -> tuple[int, int]:
        """Create, rename and activate users (id -> name) where that changes anything; return (created, updated).

        Without a name, an existing user keeps the present name, and a new user gets the id as name.
        """
        nameless = sa.any_(sa.bindparam("ids", [one for one, name in names.items() if name is None], _TEXTS))
        question = sa.select(col(User.user_id), col(User.name)).where(col(User.user_id) == nameless)
        kept = {row.user_id: row.name for row in await self._session.execute(question)}
        statement = _insert_users(_rows({one: name or kept.get(one, one) for one, name in names.items()}, at))
        new = statement.excluded
        statement = statement.on_conflict_do_update(
            index_elements=[col(User.user_id)],
            set_={"name": new.name, "active": True, "modified_at": new.modified_at},
            where=(col(User.name) != new.name) | ~col(User.active),
        )
        was_created = (await self._session.scalars(statement.returning(_WAS_CREATED))).all()
        return sum(was_created), len(was_created) - sum(was_created)

    async def get(self, user_id: str) -> User:
        """Return an existing user, read anew from the database."""
        question = sa.select(User).where(col(User.user_id) == user_id)
        return (await self._session.scalars(question, execution_options={"populate_existing": True})).one()

    async def names_of_known(self, ids: Iterable[str]) -> dict[str, str]:
        """Return id -> name of the known users among `ids`: in the directory and active."""
        rows = await self._session.execute(_NAMES_OF_KNOWN, {"ids": list(ids)})
        return {row.user_id: row.name for row in rows}

    async def exists(self, user_id: str) -> bool:
        """Return whether a user is in the directory, active or not."""
        return await self._session.get(User, user_id) is not None

    async def deactivate(self, user_id: str, at: int) -> None:
        """Deactivate an existing user, keeping the time of the first deactivation."""
        is_active = (col(User.user_id) == user_id, col(User.active))
        await self._session.execute(sa.update(User).where(*is_active).values(active=False, modified_at=at))

    async def deactivated(self, limit: int) -> Sequence[str]:
        """Return the users that were deactivated last."""
        newest = sa.select(col(User.user_id)).where(~col(User.active)).order_by(col(User.modified_at).desc())
        return (await self._session.scalars(newest.limit(limit))).all()

    async def search(self, prefix: str, after: str, limit: int) -> Sequence[User]:
        """Return users by prefix of id or name (case does not matter), after an id, in the order of ids."""
        question = sa.select(User).where(col(User.user_id) > after).order_by(col(User.user_id)).limit(limit)
        if prefix:
            # Names have no index: only administrators search, and a directory of 100,000 is read in about 30 ms.
            question = question.where(
                col(User.user_id).startswith(prefix.lower(), autoescape=True)
                | sa.func.lower(col(User.name)).startswith(prefix.lower(), autoescape=True)
            )
        return (await self._session.scalars(question)).all()


def _rows(names: Mapping[str, str], at: int) -> sa.Select[tuple[str, str, bool, int, int]]:
    ids = sa.bindparam("ids", list(names), _TEXTS)
    given = (
        sa.func.unnest(ids, sa.bindparam("names", list(names.values()), _TEXTS))
        .table_valued("id", "name", name="given")
        .render_derived()
    )
    when = sa.bindparam("at", at, sa.BigInteger)
    # Ordered, so that two imports of the same people wait for each other instead of deadlocking.
    return sa.select(given.c.id, given.c.name, sa.true(), when, when).order_by(sa.collate(given.c.id, "C"))


def _insert_users(rows: sa.Select[tuple[str, str, bool, int, int]]) -> Insert:
    return insert(User).from_select(["user_id", "name", "active", "created_at", "modified_at"], rows)
