"""A user may download a file as long as they can see a message that carries it."""

from pathlib import Path

import pytest
from tlim_client.compose import about, file_message, group_message
from tlim_client.failures import RefusedError
from tlim_protocol.errors import ErrorCode
from tlim_protocol.registry import MsgType

from tests.e2e.clients.people import People, Person, next_chat


@pytest.fixture
def plan(tmp_path: Path) -> Path:
    path = tmp_path / "plan.txt"
    path.write_text("the plan")
    return path


async def _may_read(person: Person, file_id: str, folder: Path) -> bool:
    try:
        await (await person.http()).download(file_id, folder)
    except RefusedError as refusal:
        return refusal.code is not ErrorCode.FILE_UNKNOWN
    return True


@pytest.mark.proves(MsgType.RECALL, ErrorCode.FILE_UNKNOWN)
async def test_a_recall_takes_the_file_back_from_all_but_those_to_whom_it_was_sent_on(
    people: People, plan: Path
) -> None:
    alice, bob, carol, dave = await people("alice", "bob", "carol", "dave")
    phone, forwarder = await alice.device(), await bob.device()
    file_id = await (await alice.http()).upload(plan)
    sent = [file_message(alice.user_id, other.user_id, MsgType.FILE, file_id) for other in (bob, dave)]
    for message in sent:
        await phone.send_until_stored(message)
    await next_chat(forwarder)
    onwards = file_message(bob.user_id, carol.user_id, MsgType.FILE, file_id)
    await forwarder.send_until_stored(onwards)
    assert [await _may_read(person, file_id, plan.parent) for person in (bob, carol, dave)] == [True, True, True]

    for message in sent:
        await phone.send_until_stored(about(alice.user_id, MsgType.RECALL, [message.msg_id], to=message.msg_to))

    assert [await _may_read(person, file_id, plan.parent) for person in (carol, dave)] == [True, False]
    assert await _may_read(alice, file_id, plan.parent)  # the uploader, as long as anybody may

    await forwarder.send_until_stored(about(bob.user_id, MsgType.RECALL, [onwards.msg_id], to=onwards.msg_to))

    assert not any([await _may_read(person, file_id, plan.parent) for person in (alice, bob, carol, dave)])


@pytest.mark.proves(MsgType.GROUP_FILE)
async def test_who_has_left_a_group_keeps_the_files_of_his_time_and_gets_no_later_ones(
    people: People, plan: Path
) -> None:
    alice, bob, carol = await people("alice", "bob", "carol")
    phone, one = await alice.device(), await alice.http()
    session_id = str((await one.add_session([bob.user_id, carol.user_id]))["session_id"])
    files = [await one.upload(plan) for _ in range(2)]

    await phone.send_until_stored(group_message(alice.user_id, session_id, MsgType.GROUP_FILE, {"file_id": files[0]}))
    await one.change_session(session_id, remove=[bob.user_id])
    await phone.send_until_stored(group_message(alice.user_id, session_id, MsgType.GROUP_FILE, {"file_id": files[1]}))

    assert [await _may_read(bob, file_id, plan.parent) for file_id in files] == [True, False]
    assert [await _may_read(carol, file_id, plan.parent) for file_id in files] == [True, True]


@pytest.mark.proves("GET /v1/files/usage", "DELETE /v1/files/{file_id}")
async def test_who_deletes_a_file_has_room_again_and_nobody_has_the_file(people: People, plan: Path) -> None:
    alice, bob = await people("alice", "bob")
    phone, one, other = await alice.device(), await alice.http(), await bob.http()
    file_id = await one.upload(plan)
    await phone.send_until_stored(file_message(alice.user_id, bob.user_id, MsgType.FILE, file_id))
    usage = await one.call("GET", "/v1/files/usage")
    assert (usage["files"], usage["stored_bytes"]) == (1, len("the plan"))
    assert usage["stored_bytes"] < usage["quota_bytes"]

    refused = await other.ask("DELETE", f"/v1/files/{file_id}")  # he may read it; it is not his
    assert (refused.status_code, refused.json()["code"]) == (404, ErrorCode.FILE_UNKNOWN)
    assert (await one.ask("DELETE", f"/v1/files/{file_id}")).status_code == 204

    assert (await one.call("GET", "/v1/files/usage"))["stored_bytes"] == 0
    assert [await _may_read(person, file_id, plan.parent) for person in (alice, bob)] == [False, False]
