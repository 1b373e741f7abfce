"""What a person may ask of the operator: all that is kept of them, and that it is erased."""

import asyncio
import json
import secrets
from pathlib import Path
from typing import Any

import pytest
from tenacity import AsyncRetrying, stop_after_delay, wait_fixed
from tlim_client.compose import file_message, group_message, receipt
from tlim_client.failures import RefusedError
from tlim_client.http import HttpClient
from tlim_devstack.stack import Stack
from tlim_protocol.errors import ErrorCode
from tlim_protocol.registry import MsgType

from tests.e2e.clients.operator import Operator
from tests.e2e.clients.people import People, Person, next_chat
from tests.e2e.conftest import XMPP

pytestmark = pytest.mark.skipif(XMPP != "ejabberd", reason="the command removes accounts through ejabberd's API")


async def seen_by(client: HttpClient, conversation: str) -> list[tuple[int, str, bool]]:
    return [(one["seq"], one["msg_id"], one["recalled"]) for one in await client.history(conversation)]


def records(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


async def test_a_person_takes_all_that_is_theirs_along_and_is_erased_without_a_gap_for_others(
    people: People, stack: Stack, tmp_path: Path
) -> None:
    alice, bob = await people("alice", "bob")
    phone, receiver = await alice.device(), await bob.device()
    client, reader = await alice.http(), await bob.http()
    word = f"word{secrets.token_hex(4)}"
    files = [await client.upload(_written(tmp_path / name, alice)) for name in ("own", "passed-on")]
    group = (await client.add_session([bob.user_id]))["session_id"]
    sent = [alice.text_to(bob, f"the {word}"), *(_file(alice, bob, file_id) for file_id in files)]
    sent.append(group_message(alice.user_id, group, MsgType.TEXT, {"text": f"the {word} for all"}))
    for message in sent:
        await phone.send_until_stored(message)
        await next_chat(receiver)
    passed_on = file_message(bob.user_id, alice.user_id, MsgType.FILE, files[1])
    await receiver.send_until_stored(passed_on)
    await receiver.send_until_stored(receipt(bob.user_id, sent[0], MsgType.READ))
    async for attempt in AsyncRetrying(stop=stop_after_delay(20), wait=wait_fixed(0.2), reraise=True):
        with attempt:
            assert len(await reader.search(word)) == 2  # else it proves nothing that it is not found afterwards
    before = {one: await seen_by(reader, one) for one in (alice.user_id, group)}
    operator = Operator(tmp_path, stack)

    await asyncio.to_thread(operator.run, "user", "export", alice.user_id, str(tmp_path / "alice"))
    refused = await asyncio.to_thread(operator.refused, "user", "erase", alice.user_id)
    assert "4 messages and 2 files" in refused
    assert await seen_by(reader, group) == before[group]
    erased = json.loads(await asyncio.to_thread(operator.run, "user", "erase", alice.user_id, "--yes", "--json"))

    exported = records(tmp_path / "alice" / "messages.jsonl")
    assert [one["msg_id"] for one in exported] == [*(one.msg_id for one in sent), passed_on.msg_id]
    assert {one.name for one in (tmp_path / "alice" / "files").iterdir()} == set(files)
    assert (erased["messages"], erased["files"], erased["kept_files"]) == (4, 1, 1)
    for conversation, rows in before.items():
        own = {one.msg_id for one in sent}
        assert await seen_by(reader, conversation) == [(seq, one, one in own) for seq, one, _ in rows]
    assert await reader.search(word) == []
    with pytest.raises(RefusedError) as gone:
        await reader.download(files[0], tmp_path / "gone")
    assert gone.value.code == ErrorCode.FILE_UNKNOWN
    assert (await reader.download(files[1], tmp_path / "again")).path.read_text() == f"passed-on of {alice.user_id}"
    with pytest.raises(RefusedError):
        await alice.http()
    (entry,) = (await people.admin.call("GET", "/v1/users", params={"prefix": alice.user_id}))["items"]
    assert (entry["name"], entry["active"]) == ("erased user", False)
    entries = (await people.admin.call("GET", "/v1/audit"))["items"]
    actions = [one["action"] for one in entries if one["target"] == alice.user_id]
    assert actions[:3] == ["user.erased", "user.deactivated", "user.exported"]
    again = json.loads(await asyncio.to_thread(operator.run, "user", "erase", alice.user_id, "--yes", "--json"))
    assert (again["messages"], again["files"]) == (0, 0)
    assert (await asyncio.to_thread(operator.run, "verify")).endswith("all of it agrees\n")
    others = bob.text_to(bob.user_id, "still here")
    await receiver.send_until_stored(others)


def _written(file: Path, owner: Person) -> Path:
    file.write_text(f"{file.name} of {owner.user_id}")
    return file


def _file(sender: Person, to: Person, file_id: str) -> Any:
    return file_message(sender.user_id, to.user_id, MsgType.FILE, file_id)
