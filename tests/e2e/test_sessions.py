"""Sessions over HTTP: the specification's addresses in every form of call that it allows, and the same over /v1."""

from typing import Any

import pytest
from tlim_client.failures import RefusedError
from tlim_client.http import Form
from tlim_protocol.errors import ErrorCode

from tests.e2e.clients.people import People, Person

FORMS: list[Form] = ["get", "form", "json"]


def _members(*people: Person, **each: str) -> list[dict[str, str]]:
    return [{"user_id": person.user_id, **each} for person in people]


@pytest.mark.proves(
    *(
        f"{method} /{root}/tlim/{name}Session"
        for root in ("plugin", "plugins")
        for method in ("GET", "POST")
        for name in ("add", "modify", "delete")
    ),
    "GET /v1/sessions/{session_id}",
)
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("root", ["plugin", "plugins"])
async def test_a_session_lives_from_add_to_delete_in_the_specification_s_words(
    people: People, form: Form, root: str
) -> None:
    creator, second, third = await people("张三", "李四", "王五")
    client = await creator.http()

    added = await client.legacy("addSession", form, root=root, session_type="1", subscribers=_members(creator, second))
    session_id = added["session_id"]
    assert added.pop("session_create_time").isdecimal()
    assert added == {
        "result": "ok",
        "result_detail": "ok",
        "session_id": session_id,
        "session_name": "张三,李四",
        "session_type": 1,
        "session_user": creator.user_id,
        "subscribers": _members(creator, second),
    }

    changes = [*_members(second, type="del"), *_members(third, type="add")]
    modified = await client.legacy(
        "modifySession", form, root=root, session_id=session_id, session_name="项目组", subscribers=changes
    )
    assert modified.pop("session_modify_time").isdecimal()
    assert modified == {"result": "ok", "result_detail": "", "session_id": session_id}
    read = await client.session(session_id)
    assert (read["session_name"], read["subscribers"]) == ("项目组", [creator.user_id, third.user_id])

    deleted = await client.legacy("deleteSession", form, root=root, session_id=session_id)
    assert deleted.pop("session_delete_time").isdecimal()
    assert deleted == {"result": "ok", "result_detail": "", "session_id": session_id}
    with pytest.raises(RefusedError) as refusal:
        await client.session(session_id)
    assert refusal.value.code is ErrorCode.SESSION_UNKNOWN


async def test_old_clients_notation_and_encoding_survive_on_the_wire(people: People) -> None:
    creator, second = await people("张三", "李四")
    client = await creator.http()
    notation = f"[{{user_id:'{creator.user_id}'}},{{user_id:'{second.user_id}'}},]"

    answer = await client.ask(
        "POST", "/plugin/tlim/addSession", data={"session_type": "0", "subscribers": notation, "session_name": "忽略"}
    )

    assert answer.status_code == 200
    assert answer.headers["Content-Type"] == "application/json; charset=utf-8"
    assert "张三,李四".encode() in answer.content


async def test_unknown_people_are_left_out_and_named(people: People) -> None:
    creator, second = await people("creator", "second")

    added = await (await creator.http()).legacy(
        "addSession", session_type="1", subscribers=[*_members(second, second), {"user_id": "nobody-here"}]
    )

    assert added["subscribers"] == _members(creator, second)
    assert added["unknown_subscribers"] == [{"user_id": "nobody-here"}]


@pytest.mark.proves("GET /v1/sessions", "POST /v1/sessions", "PATCH /v1/sessions/{session_id}")
async def test_removing_somebody_from_one_session_leaves_his_others_alone(people: People) -> None:
    creator, second = await people("creator", "second")
    client = await creator.http()
    one, other = [await client.add_session([second.user_id]) for _ in range(2)]

    await client.change_session(one["session_id"], remove=[second.user_id])

    his: list[dict[str, Any]] = await (await second.http()).sessions()
    assert [session["session_id"] for session in his] == [other["session_id"]]


@pytest.mark.proves(ErrorCode.SESSION_UNKNOWN)
async def test_who_is_not_in_a_session_cannot_tell_it_from_one_that_does_not_exist(people: People) -> None:
    creator, stranger = await people("creator", "stranger")
    session = await (await creator.http()).add_session([creator.user_id])
    client = await stranger.http()

    answers = [await client.ask("GET", f"/v1/sessions/{name}") for name in (session["session_id"], "no-such-session")]

    assert [answer.status_code for answer in answers] == [404, 404]
    told = [answer.json() | {"detail": ""} for answer in answers]
    assert told[0] == told[1]
    with pytest.raises(RefusedError) as refusal:
        await client.legacy("modifySession", session_id=session["session_id"], session_name="mine now")
    assert refusal.value.code is ErrorCode.SESSION_UNKNOWN


@pytest.mark.proves("PATCH /v1/sessions/{session_id}", ErrorCode.NOT_ALLOWED)
async def test_everybody_may_leave_and_only_the_creator_removes_others(people: People) -> None:
    creator, second, third = await people("creator", "second", "third")
    session = await (await creator.http()).add_session([second.user_id, third.user_id])
    client = await second.http()

    with pytest.raises(RefusedError) as refusal:
        await client.change_session(session["session_id"], remove=[third.user_id])
    await client.change_session(session["session_id"], remove=[second.user_id])

    assert refusal.value.code is ErrorCode.NOT_ALLOWED
    left = await (await creator.http()).session(session["session_id"])
    assert left["subscribers"] == [creator.user_id, third.user_id]


@pytest.mark.proves("GET /v1/sessions/{session_id}/subscribers")
async def test_the_members_of_a_session_are_read_page_by_page(people: People) -> None:
    creator, second, third = await people("creator", "second", "third")
    client = await creator.http()
    session_id = (await client.add_session([second.user_id, third.user_id]))["session_id"]

    pages = [one["user_id"] async for one in client.pages(f"/v1/sessions/{session_id}/subscribers", limit="2")]

    assert pages == [creator.user_id, second.user_id, third.user_id]


@pytest.mark.proves("DELETE /v1/sessions/{session_id}", ErrorCode.SESSION_UNKNOWN)
async def test_only_the_creator_deletes_and_then_nobody_finds_it(people: People) -> None:
    creator, second = await people("creator", "second")
    client, other = await creator.http(), await second.http()
    session_id = (await client.add_session([second.user_id]))["session_id"]

    with pytest.raises(RefusedError) as not_his:
        await other.delete_session(session_id)
    await client.delete_session(session_id)
    with pytest.raises(RefusedError) as gone:
        await other.session(session_id)

    assert (not_his.value.code, gone.value.code) == (ErrorCode.NOT_ALLOWED, ErrorCode.SESSION_UNKNOWN)
