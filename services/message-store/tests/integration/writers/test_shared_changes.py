"""Changes of sessions that several stores apply: what is missing is known to all of them, and to the next one."""

from typing import Any

APPLIED = "SELECT applied_change FROM publication"
AHEAD = "SELECT change FROM applied_changes ORDER BY 1"


async def test_a_gap_that_one_store_has_found_is_closed_by_another(
    world: Any, new_store: Any, session_event: Any
) -> None:
    one, other = await new_store(), await new_store()
    await one.record(session_event("s2", 1, "alice", change=2), session_event("s4", 1, "alice", change=4))
    assert (await other.recorder.applied()) == (0, True)
    assert await world.sql(AHEAD) == [(2,), (4,)]
    await other.record(session_event("s1", 1, "alice", change=1))
    assert (await one.recorder.applied()) == (2, True)
    await one.record(session_event("s3", 1, "alice", change=3))
    assert (await other.recorder.applied()) == (4, False)
    assert await world.sql(AHEAD) == []
    assert await world.sql(APPLIED) == [(4,)]


async def test_a_gap_is_known_to_the_next_store(new_store: Any, session_event: Any) -> None:
    await (await new_store()).record(session_event("s1", 1, "alice"), session_event("s3", 1, "alice", change=3))
    assert (await (await new_store()).recorder.applied()) == (1, True)


async def test_what_comes_again_and_what_is_no_number_of_a_change_changes_nothing(
    world: Any, new_store: Any, session_event: Any
) -> None:
    store = await new_store()
    await store.record(session_event("s1", 1, "alice"), session_event("s2", 1, "alice", change=2))
    for number, change in enumerate((1, 2, 0, -1, 2**63), start=2):
        assert await store.record(session_event("s1", number, "alice", change=change)) == [None]
    assert (await store.recorder.applied()) == (2, False)
    assert len(await world.rows()) == 7


async def test_what_the_release_before_leaves_behind_is_no_gap(world: Any, new_store: Any, session_event: Any) -> None:
    """It notes only how far it is, also beyond changes that are noted as ahead."""
    store = await new_store()
    await store.record(session_event("s3", 1, "alice", change=3), session_event("s6", 1, "alice", change=6))
    await world.sql("UPDATE publication SET applied_change = 5")
    assert (await store.recorder.applied()) == (5, True)
    await store.record(session_event("s3", 2, "alice", "bob", change=3))
    assert (await store.recorder.applied()) == (6, False)
    assert await world.sql(AHEAD) == []


async def test_a_change_that_the_table_cannot_hold_counts_as_applied_for_all_stores(
    new_store: Any, session_event: Any, accepted: Any
) -> None:
    one, other = await new_store(), await new_store()
    (reason,) = await one.record(session_event("s1", 1, "alice", session_name="\ud83d"))
    assert reason is not None
    assert (await other.recorder.applied()) == (1, False)
    assert await other.record(accepted("m1")) == [None]  # the lock of publication was given back
