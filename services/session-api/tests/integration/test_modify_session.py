"""modifySession and deleteSession, sentence by sentence of docs/wire-protocol.md, "Legacy HTTP"."""

import json
import re
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from tlim_protocol.errors import ErrorCode

AsUser = Callable[..., httpx.AsyncClient]

MODIFY = ["/plugin/tlim/modifySession", "/plugins/tlim/modifySession"]
DELETE = ["/plugin/tlim/deleteSession", "/plugins/tlim/deleteSession"]


def changes(**kinds: str) -> str:
    return json.dumps([{"user_id": user_id, "type": kind} for user_id, kind in kinds.items()])


async def modify(client: httpx.AsyncClient, **said: str) -> dict[str, Any]:
    answer = await client.post(MODIFY[0], data=said)
    assert answer.status_code == 200
    fields: dict[str, Any] = answer.json()
    return fields


async def state(client: httpx.AsyncClient, session_id: str) -> tuple[str, list[str], int]:
    session = (await client.get(f"/v1/sessions/{session_id}")).json()
    return session["session_name"], session["subscribers"], session["version"]


@pytest.mark.parametrize("path", MODIFY)
@pytest.mark.parametrize("form", ["query", "form", "json"])
async def test_every_form_on_both_paths_gets_the_specified_answer(
    as_user: AsUser, lunch: str, path: str, form: str
) -> None:
    alice = as_user("alice")
    said = {"session_id": lunch, "session_name": "你好,world", "subscribers": changes(bob="del", dave="add")}
    real_json = said | {"subscribers": json.loads(said["subscribers"])}
    answer = await {
        "query": lambda: alice.get(path, params=said),
        "form": lambda: alice.post(path, data=said),
        "json": lambda: alice.post(path, json=real_json),
    }[form]()
    assert answer.status_code == 200
    fields = answer.json()
    assert re.fullmatch(r"[0-9]{13}", fields.pop("session_modify_time"))
    assert fields == {"result": "ok", "result_detail": "", "session_id": lunch}
    assert await state(alice, lunch) == ("你好,world", ["alice", "carol", "dave"], 2)


async def test_delete_means_del(as_user: AsUser, lunch: str) -> None:
    await modify(as_user("alice"), session_id=lunch, subscribers=changes(bob="delete"))
    assert (await state(as_user("alice"), lunch))[1] == ["alice", "carol"]


async def test_a_person_is_removed_from_this_session_only(as_user: AsUser, lunch: str) -> None:
    other = await as_user("alice").post("/v1/sessions", json={"session_type": 1, "subscribers": ["bob", "carol"]})
    await modify(as_user("alice"), session_id=lunch, subscribers=changes(bob="del"))
    assert (await state(as_user("bob"), other.json()["session_id"]))[1] == ["alice", "bob", "carol"]


async def test_any_subscriber_renames_and_adds(as_user: AsUser, lunch: str) -> None:
    fields = await modify(as_user("bob"), session_id=lunch, session_name="dinner", subscribers=changes(dave="add"))
    assert fields["result"] == "ok"
    assert await state(as_user("dave"), lunch) == ("dinner", ["alice", "bob", "carol", "dave"], 2)


async def test_only_the_creator_removes_others(as_user: AsUser, lunch: str) -> None:
    fields = await modify(as_user("bob"), session_id=lunch, subscribers=changes(carol="del"))
    assert fields["result_detail"] == ErrorCode.NOT_ALLOWED
    assert (await modify(as_user("alice"), session_id=lunch, subscribers=changes(carol="del")))["result"] == "ok"


async def test_everybody_removes_himself(as_user: AsUser, lunch: str) -> None:
    assert (await modify(as_user("bob"), session_id=lunch, subscribers=changes(bob="del")))["result"] == "ok"
    assert (await state(as_user("alice"), lunch))[1] == ["alice", "carol"]


async def test_who_left_is_a_stranger_until_he_is_added_again(as_user: AsUser, lunch: str) -> None:
    await modify(as_user("bob"), session_id=lunch, subscribers=changes(bob="del"))
    fields = await modify(as_user("bob"), session_id=lunch, session_name="mine")
    assert fields["result_detail"] == ErrorCode.SESSION_UNKNOWN
    await modify(as_user("carol"), session_id=lunch, subscribers=changes(bob="add"))
    assert (await state(as_user("bob"), lunch))[1] == ["alice", "carol", "bob"]


async def test_when_the_creator_leaves_the_longest_member_takes_over(as_user: AsUser, lunch: str) -> None:
    await modify(as_user("alice"), session_id=lunch, subscribers=changes(alice="del"))
    refused = await modify(as_user("carol"), session_id=lunch, subscribers=changes(bob="del"))
    assert refused["result_detail"] == ErrorCode.NOT_ALLOWED
    assert (await modify(as_user("bob"), session_id=lunch, subscribers=changes(carol="del")))["result"] == "ok"
    assert (await as_user("bob").get(DELETE[0], params={"session_id": lunch})).json()["result"] == "ok"


@pytest.mark.parametrize(
    ("said", "code"),
    [
        ({"session_name": " "}, ErrorCode.SESSION_NAME_EMPTY),
        ({"session_name": ""}, ErrorCode.SESSION_NAME_EMPTY),
        ({"session_name": "x" * 129}, ErrorCode.FIELD_INVALID),
        ({}, ErrorCode.FIELD_INVALID),
        ({"subscribers": "[]"}, ErrorCode.FIELD_INVALID),
        ({"subscribers": "[{"}, ErrorCode.JSON_INVALID),
        ({"subscribers": "7"}, ErrorCode.NOT_AN_ARRAY),
        ({"subscribers": changes(dave="remove")}, ErrorCode.FIELD_INVALID),
        ({"subscribers": '[{"user_id":"","type":"add"}]'}, ErrorCode.USER_UNKNOWN),
        ({"subscribers": changes(ghost="add")}, ErrorCode.USER_UNKNOWN),
        ({"subscribers": changes(dave="add", Dave="del")}, ErrorCode.FIELD_INVALID),
        ({"session_name": "half", "subscribers": "[{]"}, ErrorCode.JSON_INVALID),
        ({"session_name": "half", "subscribers": changes(dave="add", carol="del")}, ErrorCode.NOT_ALLOWED),
        ({"session_name": "x" * 129, "subscribers": changes(dave="add")}, ErrorCode.FIELD_INVALID),
        ({"session_name": "half", "subscribers": '[{"user_id":" ","type":"del"}]'}, ErrorCode.USER_UNKNOWN),
    ],
)
async def test_a_refusal_changes_nothing(as_user: AsUser, lunch: str, said: dict[str, str], code: ErrorCode) -> None:
    fields = await modify(as_user("bob"), session_id=lunch, **said)
    assert (fields["result"], fields["result_detail"]) == ("fail", code)
    assert await state(as_user("bob"), lunch) == ("爱丽丝,Bob,Carol", ["alice", "bob", "carol"], 1)


async def test_unknown_people_are_named_and_the_rest_is_done(as_user: AsUser, lunch: str) -> None:
    fields = await modify(as_user("bob"), session_id=lunch, subscribers=changes(ghost="add", dave="add"))
    assert fields["unknown_subscribers"] == [{"user_id": "ghost"}]
    assert (await state(as_user("bob"), lunch))[1][-1] == "dave"


async def test_what_is_so_already_makes_no_new_version(as_user: AsUser, lunch: str) -> None:
    first = await modify(as_user("bob"), session_id=lunch, session_name="dinner", subscribers=changes(dave="add"))
    again = await modify(as_user("bob"), session_id=lunch, session_name="dinner", subscribers=changes(dave="add"))
    assert again == first
    assert (await state(as_user("bob"), lunch))[2] == 2


@pytest.mark.parametrize("path", [*MODIFY, *DELETE])
@pytest.mark.parametrize("session_id", [None, "", " "])
async def test_a_missing_session_id_is_refused(as_user: AsUser, path: str, session_id: str | None) -> None:
    said = {} if session_id is None else {"session_id": session_id}
    answer = await as_user("alice").post(path, data=said)
    assert (answer.status_code, answer.json()["result_detail"]) == (200, ErrorCode.SESSION_ID_EMPTY)


@pytest.mark.parametrize("path", [MODIFY[0], DELETE[0]])
async def test_a_stranger_cannot_tell_a_session_from_none(as_user: AsUser, lunch: str, path: str) -> None:
    for session_id in (lunch, "no-such-session"):
        said = {"session_id": session_id, "session_name": "mine"}
        answer = await as_user("dave").get(path, params=said)
        assert (answer.status_code, answer.json()["result_detail"]) == (200, ErrorCode.SESSION_UNKNOWN)


@pytest.mark.parametrize("path", [*MODIFY, *DELETE])
async def test_without_a_token_it_is_401(stranger: httpx.AsyncClient, path: str) -> None:
    assert (await stranger.post(path, data={"user_id": "alice"})).status_code == 401


@pytest.mark.parametrize("path", DELETE)
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_delete_session_answers_as_specified(as_user: AsUser, lunch: str, path: str, method: str) -> None:
    given = {"params": {"session_id": lunch}} if method == "GET" else {"data": {"session_id": lunch}}
    answer = await as_user("alice").request(method, path, **given)  # type: ignore[arg-type]
    fields = answer.json()
    assert re.fullmatch(r"[0-9]{13}", fields.pop("session_delete_time"))
    assert fields == {"result": "ok", "result_detail": "", "session_id": lunch}


async def test_only_the_creator_deletes(as_user: AsUser, lunch: str) -> None:
    answer = await as_user("bob").get(DELETE[0], params={"session_id": lunch})
    assert answer.json()["result_detail"] == ErrorCode.NOT_ALLOWED
    assert (await state(as_user("bob"), lunch))[2] == 1


async def test_a_deleted_session_is_gone_for_every_later_request(as_user: AsUser, lunch: str) -> None:
    alice = as_user("alice")
    await alice.get(DELETE[0], params={"session_id": lunch})
    again = await alice.get(DELETE[0], params={"session_id": lunch})
    modified = await modify(alice, session_id=lunch, session_name="dinner")
    assert [again.json()["result_detail"], modified["result_detail"]] == [ErrorCode.SESSION_UNKNOWN] * 2
    assert (await alice.get(f"/v1/sessions/{lunch}")).status_code == 404
    assert (await alice.get("/v1/sessions")).json()["items"] == []


async def test_when_the_creator_is_deactivated_the_longest_active_member_takes_over(
    as_user: AsUser, admin: httpx.AsyncClient, lunch: str
) -> None:
    for gone in ("alice", "bob"):
        await admin.delete(f"/v1/users/{gone}")
    assert (await modify(as_user("carol"), session_id=lunch, subscribers=changes(alice="del")))["result"] == "ok"
    await admin.put("/v1/users/bob", json={})
    refused = await modify(as_user("carol"), session_id=lunch, subscribers=changes(bob="del"))
    assert refused["result_detail"] == ErrorCode.NOT_ALLOWED
    assert (await as_user("bob").get(DELETE[0], params={"session_id": lunch})).json()["result"] == "ok"


async def test_a_deactivated_member_changes_nothing(as_user: AsUser, admin: httpx.AsyncClient, lunch: str) -> None:
    await admin.delete("/v1/users/alice")
    fields = await modify(as_user("alice"), session_id=lunch, session_name="dinner")
    deleted = await as_user("alice").get(DELETE[0], params={"session_id": lunch})
    assert [fields["result_detail"], deleted.json()["result_detail"]] == [ErrorCode.NOT_ALLOWED] * 2
