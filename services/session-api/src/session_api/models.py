"""The tables: users, sessions, present and past subscribers, logs. Times are epoch milliseconds."""

import sqlalchemy as sa
from pydantic import JsonValue
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlmodel import Field, SQLModel
from tlim_runtime.outbox import Outbox
from tlim_runtime.tables import new_metadata

_ID = sa.Text(collation="C")  # byte order, so that cursors, ORDER BY and prefix search by index agree
_BIG = sa.BigInteger()


class SessionTable(SQLModel):
    """The base of this service's tables, with its own metadata, because tests of all services share a process."""

    metadata = new_metadata()


OUTBOX = Outbox(SessionTable.metadata)


class User(SessionTable, table=True):
    """A user of the directory: imported, or seen once. `name` is the id until an import gives a better one."""

    __tablename__ = "users"

    user_id: str = Field(primary_key=True, sa_type=_ID)
    name: str = Field(sa_type=sa.Text)
    active: bool = True
    created_at: int = Field(sa_type=_BIG)
    modified_at: int = Field(sa_type=_BIG)


class Session(SessionTable, table=True):
    """A session (specification section 2, JSON layer 2). `creator` is its session_user, a reserved word in SQL."""

    __tablename__ = "sessions"

    session_id: str = Field(primary_key=True, sa_type=_ID)
    session_name: str = Field(sa_type=sa.Text)
    session_type: int = Field(sa_type=_BIG)
    creator: str = Field(foreign_key="users.user_id", sa_type=_ID)
    version: int = 1
    changed_by: str = Field(sa_type=_ID)
    created_at: int = Field(sa_type=_BIG)
    modified_at: int | None = Field(default=None, sa_type=_BIG)
    deleted_at: int | None = Field(default=None, sa_type=_BIG)
    session_valid: int | None = Field(  # written by PostgreSQL only, so that it cannot disagree with deleted_at
        default=None,
        sa_type=sa.SmallInteger,
        sa_column_args=[sa.Computed("CASE WHEN deleted_at IS NULL THEN 0 ELSE 1 END", persisted=True)],
    )


class Subscriber(SessionTable, table=True):
    """One membership period: from the version of the session that added a user to the version that removed them."""

    __tablename__ = "subscribers"
    __table_args__ = (
        # A user has at most one open period in a session. The index also finds all sessions of a user.
        sa.Index(
            "uq_subscribers_open", "user_id", "session_id", unique=True, postgresql_where=sa.text("left_at IS NULL")
        ),
        sa.Index("ix_subscribers_in_order", "session_id", "added_version", "position"),  # a page of a large group
    )

    session_id: str = Field(primary_key=True, foreign_key="sessions.session_id", sa_type=_ID)
    user_id: str = Field(primary_key=True, foreign_key="users.user_id", sa_type=_ID)
    added_version: int = Field(primary_key=True)
    position: int  # the order within one version: subscribers are listed in the order in which they came
    joined_at: int = Field(sa_type=_BIG)
    removed_version: int | None = None
    left_at: int | None = Field(default=None, sa_type=_BIG)


class SessionChange(SessionTable, table=True):
    """One version of one session, in the log of all changes: `change` rises by one, in the order of the commits.

    The members at that version are not copied here: the membership periods tell them for any version.
    """

    __tablename__ = "session_changes"
    __table_args__ = (sa.UniqueConstraint("session_id", "version"),)

    change: int = Field(primary_key=True, sa_type=_BIG, sa_column_kwargs={"autoincrement": False})
    session_id: str = Field(foreign_key="sessions.session_id", sa_type=_ID)
    version: int
    session_name: str = Field(sa_type=sa.Text)
    actor: str = Field(sa_type=_ID)
    at: int = Field(sa_type=_BIG)
    deleted: bool


class IdempotencyKey(SessionTable, table=True):
    """What a person's request with an `Idempotency-Key` made; the rest of its answer is the session's version 1."""

    __tablename__ = "idempotency_keys"
    __table_args__ = (sa.Index("ix_idempotency_keys_at", "at"),)

    user_id: str = Field(primary_key=True, sa_type=_ID)
    key: str = Field(primary_key=True, sa_type=_ID)
    request: str = Field(sa_type=sa.Text)  # its fingerprint (idempotency.py)
    session_id: str = Field(foreign_key="sessions.session_id", sa_type=_ID)
    unknown: list[str] = Field(sa_type=ARRAY(sa.Text))
    at: int = Field(sa_type=_BIG)


class AuditEntry(SessionTable, table=True):
    """What an administrator did, written in the transaction of the action. Rows are never changed."""

    __tablename__ = "audit"
    __table_args__ = (sa.Index("ix_audit_actor_id", "actor", "id"),)

    id: int | None = Field(default=None, sa_column=sa.Column(_BIG, sa.Identity(always=True), primary_key=True))
    at: int = Field(sa_type=_BIG)
    actor: str = Field(sa_type=_ID)
    action: str = Field(sa_type=sa.Text)
    target: str | None = Field(default=None, sa_type=_ID)
    detail: dict[str, JsonValue] = Field(sa_type=JSONB)
    request_id: str = Field(sa_type=sa.Text)
