"""Whatever comes, it makes no difference whether it comes in one batch, in several, or one by one."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tlim_protocol.events import StoredMessage
from tlim_protocol.registry import MsgType

PEOPLE = ["alice", "bob", "carol"]
MINUTE = 60_000

person = st.sampled_from(PEOPLE)
message = st.sampled_from([f"m{number}" for number in range(6)])
place = st.sampled_from([None, None, "s1", "s2"])  # None: between two people


@st.composite
def histories(draw: st.DrawFn) -> list[tuple[Any, ...]]:
    """What happens, as plain values: messages, commands, and sessions whose versions rise, but for some."""
    steps: list[tuple[Any, ...]] = []
    versions = {"s1": 0, "s2": 0}
    for number in range(draw(st.integers(1, 25))):
        kind = draw(st.sampled_from(["chat", "chat", "file", "command", "command", "session"]))
        if kind == "session":
            session_id = draw(st.sampled_from(["s1", "s2"]))
            versions[session_id] += draw(st.sampled_from([0, 1, 1, 1, 2]))
            members = draw(st.lists(person, unique=True, min_size=1))
            steps.append((kind, session_id, max(versions[session_id], 1), members, draw(st.integers(0, 9)) == 0))
        elif kind == "command":
            named = draw(st.lists(message, min_size=1, max_size=3))
            command = draw(st.sampled_from([MsgType.RECEIVED, MsgType.READ, MsgType.RECALL]))
            waited = draw(st.sampled_from([0, 0, 3 * MINUTE]))
            steps.append((kind, f"c{number}", draw(person), draw(person), draw(place), command, named, waited))
        else:
            steps.append((kind, draw(message), draw(person), draw(person), draw(place)))
    return steps


@pytest.fixture(name="item_of")
def item_of_fixture(accepted: Any, session: Any) -> Callable[..., Any]:
    def item_of(kind: str, *values: Any) -> Any:
        if kind == "session":
            session_id, version, members, deleted = values
            return session(version, *members, session_id=session_id, deleted=deleted)
        msg_id, sender, to, session_id = values[:4]
        mark = {} if session_id is None else {"session_id": session_id}
        if kind == "command":
            command, named, waited = values[4:]
            return accepted(
                msg_id, command, sender, msg_to=to, arrived_at=1_700_000_000_000 + waited,
                body=[{"msg_id": name, **mark} for name in named],
            )  # fmt: skip
        types = {
            "chat": (MsgType.TEXT, MsgType.GROUP_TEXT, {"text": "hi"}),
            "file": (MsgType.FILE, MsgType.GROUP_FILE, {"file_id": "f1"}),
        }
        direct, group, content = types[kind]
        return accepted(msg_id, group if mark else direct, sender, msg_to=to, body=[{**content, **mark}])

    return item_of


async def test_nothing_is_looked_up_and_nobody_asked_while_the_log_is_locked(
    bench: Any, accepted: Any, session: Any
) -> None:
    seen: list[tuple[str, bool]] = []

    def watch(owner: Any, name: str) -> None:
        ask = getattr(owner, name)

        async def watched(*args: Any, **named: Any) -> Any:
            seen.append((name, bench.archive.is_locked))
            return await ask(*args, **named)

        setattr(owner, name, watched)

    looked_up = ["conversations", "rosters", "places", "earlier_spans", "shared_files"]
    for name in looked_up:
        watch(bench.archive, name)
    for name in ("known", "files", "sessions"):
        watch(bench.session_api, name)
    watch(bench.archive, "write")
    bench.session_api.told["s1"] = session(1, "alice", "bob", session_id="s1")
    to_session = accepted("m3", MsgType.GROUP_TEXT, msg_to=None, body=[{"session_id": "s1", "text": "hi"}])
    forwarded = accepted("m2", MsgType.FILE, "bob", body=[{"file_id": "f1"}])
    await bench.record(accepted("m1"), forwarded, to_session)
    assert {name for name, _ in seen} == {*looked_up, "known", "files", "sessions", "write"}
    assert {name for name, is_locked in seen if is_locked} == {"write"}


def seen(bench: Any) -> Any:
    """Everything that came of it, with rows named instead of numbered."""
    name = {row.seq: (row.sender, row.msg_id) for row in bench.archive.rows}
    return {
        "told": [
            (event.envelope.msg_id, sorted(event.recipients), event.envelope.body, name[event.seq])
            if isinstance(event, StoredMessage)
            else (event.msg_id, event.code)
            for event in bench.publication.events
        ],
        "rows": [row._replace(seq=0) for row in bench.archive.rows],
        "members": {(*key[:2], name[key[2]]): left and name[left] for key, left in bench.archive.members.items()},
        "receipts": {(name[seq], user): read for (seq, user), read in bench.archive.read.items()},
        "cursors": {key: name[seq] for key, seq in bench.archive.cursors.items()},
        "recalled": sorted(name[seq] for seq in bench.archive.recalled),
        "files": sorted((file_id, name[seq]) for file_id, seq in bench.archive.files),
        "made": bench.archive.made,
    }


@given(steps=histories(), size=st.integers(1, 5))
@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_batches_of_any_size_come_to_the_same(new_bench: Any, item_of: Any, steps: Any, size: int) -> None:
    items = [item_of(*step) for step in steps]
    outcomes = []
    for length in (1, size, len(items)):
        bench = new_bench()
        bench.session_api.users = set(PEOPLE)
        for start in range(0, len(items), length):
            asyncio.run(bench.record(*items[start : start + length]))
        outcomes.append(seen(bench))
    assert outcomes[0] == outcomes[1] == outcomes[2]
