"""Files on real tables: what file-api and the log say about who may send one on."""

from typing import Any

from tlim_protocol.errors import ErrorCode
from tlim_protocol.registry import MsgType


def picture(accepted: Any, msg_id: str, file_id: str, sender: str, to: str) -> Any:
    return accepted(msg_id, sender, to, MsgType.IMAGE, body=[{"file_id": file_id}])


async def test_a_file_goes_from_its_owner_to_those_who_were_sent_it_and_on(
    world: Any, accepted: Any, session_event: Any
) -> None:
    world.directory.owners = {"f1": "alice", "f2": "alice"}
    to_group = accepted("g1", "alice", None, MsgType.GROUP_FILE, body=[{"session_id": "s1", "file_id": "f2"}])
    recall = accepted("c1", "alice", "bob", MsgType.RECALL, body=[{"msg_id": "m2"}], received_at=0)
    async with world.running():
        await world.announce(session_event("s1", 1, "alice", "dave"))
        await world.send(picture(accepted, "m1", "f1", "bob", "carol"), picture(accepted, "m2", "f1", "alice", "bob"))
        await world.send(to_group, picture(accepted, "m3", "none", "alice", "bob"))
        await world.settled(3)
        await world.send(picture(accepted, "m4", "f1", "bob", "carol"), picture(accepted, "m5", "f2", "dave", "carol"))
        await world.send(picture(accepted, "m6", "f2", "bob", "carol"))
        await world.settled(5)
        await world.send(recall)
        await world.settled(6)
        await world.send(picture(accepted, "m7", "f1", "bob", "dave"), picture(accepted, "m8", "f1", "carol", "dave"))
        await world.settled(8)
    refused = {event.msg_id for event in await world.out() if not hasattr(event, "envelope")}
    assert refused == {"m1", "m3", "m6"}  # after the recall bob still sees his own forward, m4
    assert (await world.deliveries())[-1].envelope.msg_id == "m8"


async def test_without_file_api_files_shall_be_sent_again_and_texts_flow(world: Any, accepted: Any) -> None:
    await world.file_api.close()
    await world.send(picture(accepted, "m1", "f1", "alice", "bob"), accepted("m2"))
    async with world.running():
        await world.settled(1)
    refused, stored = await world.out()
    assert (refused.msg_id, refused.code) == ("m1", ErrorCode.UNAVAILABLE)
    assert stored.envelope.msg_id == "m2"


async def test_somebody_who_names_very_many_files_keeps_nobody_else_from_sending_his(world: Any, accepted: Any) -> None:
    def flood(number: int) -> Any:
        body = [{"file_id": f"none{number:02}{element:03}".ljust(64, "文")} for element in range(1000)]
        return accepted(f"m{number}", "alice", "bob", MsgType.IMAGE, body=body)

    await world.send(*(flood(number) for number in range(49)), picture(accepted, "good", "f1", "carol", "bob"))
    async with world.running(user_lookup_timeout="PT30S"):  # file-api reads 2 MB here, in the store's own event loop
        await world.settled(1)
    assert [delivery.envelope.msg_id for delivery in await world.deliveries()] == ["good"]
    refusals = [event for event in await world.out() if not hasattr(event, "envelope")]
    assert [refusal.code for refusal in refusals] == 49 * [ErrorCode.FILE_UNKNOWN]
