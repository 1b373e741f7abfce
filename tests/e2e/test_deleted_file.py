"""Who uploaded a file may delete it: it is gone for everybody, and makes room in his quota."""

from pathlib import Path

import pytest
from tlim_client.compose import file_message
from tlim_client.failures import RefusedError
from tlim_protocol.errors import ErrorCode
from tlim_protocol.registry import MsgType

from tests.e2e.clients.people import People


@pytest.mark.proves("DELETE /v1/files/{file_id}", "GET /v1/files/usage", ErrorCode.FILE_UNKNOWN)
async def test_a_deleted_file_is_gone_for_everybody_and_makes_room(people: People, tmp_path: Path) -> None:
    alice, bob = await people("alice", "bob")
    phone, one, other = await alice.device(), await alice.http(), await bob.http()
    (tmp_path / "plan.txt").write_text("the plan")
    file_id = await one.upload(tmp_path / "plan.txt")
    await phone.send_until_stored(file_message(alice.user_id, bob.user_id, MsgType.FILE, file_id))
    before = await one.call("GET", "/v1/files/usage")

    with pytest.raises(RefusedError) as not_his:
        await other.call("DELETE", f"/v1/files/{file_id}")
    await one.call("DELETE", f"/v1/files/{file_id}")

    assert not_his.value.code in {ErrorCode.FILE_UNKNOWN, ErrorCode.NOT_ALLOWED}
    for client in (one, other):
        with pytest.raises(RefusedError) as refusal:
            await client.download(file_id, tmp_path / "gone.txt")
        assert refusal.value.code is ErrorCode.FILE_UNKNOWN
    after = await one.call("GET", "/v1/files/usage")
    assert (before["files"], before["stored_bytes"], after["files"], after["stored_bytes"]) == (1, 8, 0, 0)
