"""The shapes of requests and answers: the specification's own, and those of the modern API."""

from collections.abc import Sequence
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, JsonValue, StrictInt
from tlim_protocol.errors import ErrorCode, TlimError
from tlim_protocol.events import AuditAction
from tlim_protocol.identity import MAX_ID
from tlim_protocol.names import MAX_NAME

from session_api.edits import MAX_LISTED
from session_api.import_service import ImportReport
from session_api.models import AuditEntry, Session, User
from session_api.service import SessionView

UserId = Annotated[str, Field(max_length=MAX_ID, examples=["alice"])]
UserIds = Annotated[list[UserId], Field(max_length=MAX_LISTED)]
Name = Annotated[str, Field(max_length=MAX_NAME)]
EpochMs = Annotated[int, Field(description="epoch milliseconds", examples=[1533804920060])]


class LegacySubscriber(BaseModel):
    """An element of the specification's `subscribers`."""

    user_id: str


class SessionRefused(BaseModel):
    """The answer of the specification's endpoints to a refused request."""

    result: Literal["fail"] = "fail"
    result_detail: ErrorCode
    detail: str


class SessionAdded(BaseModel):
    """The answer of addSession; it has `unknown_subscribers` only if some are unknown."""

    result: Literal["ok"] = "ok"
    result_detail: Literal["ok"] = "ok"
    session_id: str
    session_name: str
    session_type: int
    session_user: str
    session_create_time: str
    subscribers: list[LegacySubscriber]
    unknown_subscribers: list[LegacySubscriber] | None = None

    @classmethod
    def of(cls, view: SessionView) -> Self:
        """Return the specification's shape of a new session."""
        return cls(
            session_id=view.session.session_id,
            session_name=view.session.session_name,
            session_type=view.session.session_type,
            session_user=view.session.creator,
            session_create_time=str(view.session.created_at),
            subscribers=_elements(view.subscribers),
            unknown_subscribers=_elements(view.unknown) or None,
        )


class SessionModified(BaseModel):
    """The answer of modifySession; it has `unknown_subscribers` only if some are unknown."""

    result: Literal["ok"] = "ok"
    result_detail: Literal[""] = ""
    session_id: str
    session_modify_time: str
    unknown_subscribers: list[LegacySubscriber] | None = None

    @classmethod
    def of(cls, view: SessionView) -> Self:
        """Return the specification's shape of a change; an unchanged session counts as modified when it was created."""
        return cls(
            session_id=view.session.session_id,
            session_modify_time=str(view.session.modified_at or view.session.created_at),
            unknown_subscribers=_elements(view.unknown) or None,
        )


class SessionDeleted(BaseModel):
    """The answer of deleteSession."""

    result: Literal["ok"] = "ok"
    result_detail: Literal[""] = ""
    session_id: str
    session_delete_time: str

    @classmethod
    def of(cls, view: SessionView) -> Self:
        """Return the specification's shape of a deletion."""
        return cls(session_id=view.session.session_id, session_delete_time=str(view.session.deleted_at))


def _elements(ids: Sequence[str]) -> list[LegacySubscriber]:
    return [LegacySubscriber(user_id=one) for one in ids]


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid")  # a misspelt `remvoe` must not look like success


class SessionCreate(_Request):
    """A session to create; the caller is always in it. Without a name it gets the names of its people."""

    session_type: StrictInt = Field(ge=0)
    subscribers: UserIds
    session_name: Name | None = None


class SessionUpdate(_Request):
    """A change of a session: a new name, people to add, people to remove, or all of these in one step."""

    session_name: Name | None = None
    add: UserIds = []
    remove: UserIds = []


class SessionSummary(BaseModel):
    """A session in a list. `version` rises by one with every change."""

    session_id: str
    session_name: str
    session_type: int
    session_user: str = Field(description="who created it")
    version: int
    created_at: EpochMs
    modified_at: EpochMs | None

    @classmethod
    def summary_of(cls, session: Session) -> "SessionSummary":
        """Return the shape of a session without its people."""
        return SessionSummary(**session.model_dump(include=_SUMMARY), session_user=session.creator)


_SUMMARY = {"session_id", "session_name", "session_type", "version", "created_at", "modified_at"}


class SessionRead(SessionSummary):
    """A session with its people, in the order in which they came."""

    subscribers: list[str]
    unknown_subscribers: list[str] = Field(default=[], description="people in this request who are not known users")

    @classmethod
    def of(cls, view: SessionView) -> Self:
        """Return the shape of a session with its people."""
        summary = SessionSummary.summary_of(view.session)
        return cls(**summary.model_dump(), subscribers=list(view.subscribers), unknown_subscribers=list(view.unknown))


class SessionPage(BaseModel):
    """One page of sessions, newest first; `next_cursor` is null on the last one."""

    items: list[SessionSummary]
    next_cursor: str | None


class SubscriberRead(BaseModel):
    """A member of a session."""

    user_id: str
    name: str
    joined_at: EpochMs


class SubscriberPage(BaseModel):
    """One page of subscribers, in the order they came; `next_cursor` is null on the last one."""

    items: list[SubscriberRead]
    next_cursor: str | None


class UserPut(_Request):
    """A user to import; without a name, the id is used as the name."""

    name: str | None = None


class UserRow(_Request):
    """One of many users to import. Rows are checked one by one, so that the answer can name every bad row."""

    user_id: str
    name: str | None = None


class UsersImport(_Request):
    """Users to import, all or none."""

    users: list[UserRow] = Field(min_length=1, max_length=10_000)


class UsersImported(BaseModel):
    """How many users an import created, and how many it renamed or activated."""

    created: int
    updated: int


class InvalidRow(BaseModel):
    """A row that was left out; `row` counts from 1, without the first line of a CSV file."""

    row: int
    code: ErrorCode
    field: str | None
    detail: str

    @classmethod
    def of(cls, number: int, error: TlimError) -> Self:
        """Return the shape of a refused row."""
        return cls(row=number, code=error.code, field=error.field, detail=error.detail)


class ImportRead(BaseModel):
    """The result of importing a file, in numbers of users; `updated` users were renamed or activated again."""

    created: int
    updated: int
    unchanged: int
    accounts_created: int = Field(description="XMPP accounts made, for rows with a password")
    accounts_changed: int = Field(description="XMPP accounts given the file's password")
    invalid: list[InvalidRow]
    ignored_columns: list[str]

    @classmethod
    def of(cls, report: ImportReport) -> Self:
        """Return the shape of a report."""
        return cls(
            created=report.created,
            updated=report.updated,
            unchanged=report.unchanged,
            accounts_created=report.accounts_created,
            accounts_changed=report.accounts_changed,
            invalid=[InvalidRow.of(number, error) for number, error in report.refused],
            ignored_columns=list(report.ignored),
        )


class UserRead(BaseModel):
    """A user of the directory."""

    user_id: str
    name: str
    active: bool
    created_at: EpochMs
    modified_at: EpochMs

    @classmethod
    def of(cls, user: User) -> Self:
        """Return the shape of a user."""
        return cls(**user.model_dump())


class UserPage(BaseModel):
    """One page of users in the order of their ids; `next_cursor` is null on the last one."""

    items: list[UserRead]
    next_cursor: str | None


class AuditRead(BaseModel):
    """What the administrator `actor` did to `target`, with further facts in `detail`.

    The target is a user id; for a message into a session it is the session id.
    """

    id: int
    at: EpochMs
    actor: str
    action: AuditAction
    target: str | None
    detail: dict[str, JsonValue]
    request_id: str = Field(description="as in the logs, and in the answer's X-Request-ID")

    @classmethod
    def of(cls, entry: AuditEntry) -> Self:
        """Return the shape of an entry."""
        return cls(**entry.model_dump())


class AuditPage(BaseModel):
    """One page of the audit log, newest first; `next_cursor` is null on the last one."""

    items: list[AuditRead]
    next_cursor: str | None
