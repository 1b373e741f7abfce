"""What other services are told about a session."""

from session_api.models import Session
from session_api.service import event_of, largest_event
from tlim_protocol.registry import MsgType


def a_session(*, creator: str = "alice", version: int = 3, deleted_at: int | None = None) -> Session:
    return Session(
        session_id="s-1",
        session_name="lunch",
        session_type=1,
        creator=creator,
        version=version,
        changed_by="bob",
        created_at=1000,
        modified_at=2000,
        deleted_at=deleted_at,
    )


def test_the_event_tells_the_newest_version() -> None:
    event = event_of(a_session(), ["alice", "bob"], added=["bob"], removed=["carol"])
    assert event.msg_type is MsgType.SESSION_CHANGED
    assert (event.version, event.actor, event.at, event.session_user) == (3, "bob", 2000, "alice")
    assert (event.subscribers, event.added, event.removed) == (["alice", "bob"], ["bob"], ["carol"])


def test_the_event_type_follows_from_the_session() -> None:
    assert event_of(a_session(version=1), ["alice"], ["alice"], []).msg_type is MsgType.SESSION_ADDED
    deleted = event_of(a_session(deleted_at=3000), ["alice"], [], [])
    assert (deleted.msg_type, deleted.deleted, deleted.at) == (MsgType.SESSION_DELETED, True, 3000)


def test_no_event_is_larger_than_the_largest() -> None:
    everybody = ["\U00010428" * 64] * 1_000
    session = a_session(creator=everybody[0])
    session.changed_by, session.session_name = everybody[0], '"' * 128
    size = len(event_of(session, everybody, added=everybody, removed=everybody).to_bytes())
    assert largest_event(1_000) - 4_096 < size <= largest_event(1_000)
