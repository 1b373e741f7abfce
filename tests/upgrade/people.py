"""What people do in an upgrade, and what must be left of it."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tlim_client.compose import group_message, receipt
from tlim_client.inbox import Delivered, Stored
from tlim_protocol.envelope import Envelope
from tlim_protocol.registry import MsgType

from tests.e2e.clients.people import Person

ROUNDS = 4
"""Each of two processes of a service is asked twice."""
PATIENCE_S = 180.0


@dataclass(frozen=True)
class Shared:
    """A file that one person has shared in a session of its own, and the other has read."""

    session_id: str
    file_id: str
    msg_id: str
    seq: int
    text: str


def _is(envelope: Envelope) -> Callable[[Delivered], bool]:
    return lambda event: event.envelope == envelope


async def use_everything(author: Person, reader: Person, folder: Path) -> list[Shared]:
    """Make sessions and send a file to each. The reader gets it and says so. The gateway asks the processes in turn."""
    client, phone, receiver = await author.http(), await author.device(), await reader.device()
    shared = []
    for number in range(ROUNDS):
        source = folder / "source.txt"
        source.write_text(text := f"file {number} of {author.user_id}")
        session_id = str((await client.add_session([reader.user_id]))["session_id"])
        file_id = await client.upload(source)
        carrying = group_message(author.user_id, session_id, MsgType.GROUP_FILE, {"file_id": file_id})
        stored = await phone.send_until_stored(carrying, give_up=PATIENCE_S)
        await receiver.expect(Delivered, _is(carrying), within=PATIENCE_S)
        read = receipt(reader.user_id, carrying, MsgType.READ)
        await receiver.send_until_stored(read, give_up=PATIENCE_S)
        await phone.expect(Delivered, _is(read), within=PATIENCE_S)
        shared.append(Shared(session_id, file_id, carrying.msg_id, stored.seq, text))
    await phone.close()
    await receiver.close()
    return shared


async def assert_all_there(shared: list[Shared], author: Person, reader: Person, folder: Path) -> None:
    """Assert that each session has its message, the reader can read the file, and the author sees that it was read."""
    client, other = await author.http(), await reader.http()
    assert {one["session_id"] for one in await other.sessions()} == {one.session_id for one in shared}
    for one in shared:
        history = await other.history(one.session_id)
        assert [(entry["msg_id"], entry["seq"]) for entry in history] == [(one.msg_id, one.seq)]
        assert (await other.download(one.file_id, folder / "back.txt")).path.read_text() == one.text
        told = await client.message(one.msg_id)
        assert (told["delivered"], told["read"]) == (1, 1)


async def write_to_absent(author: Person, absent: Person) -> list[tuple[Envelope, Stored]]:
    """Send messages to a person who was there and has left; return each with its answer."""
    phone, receiver = await author.device(), await absent.device()
    seen = author.text_to(absent, "you are still there")
    await phone.send_until_stored(seen, give_up=PATIENCE_S)
    await receiver.expect(Delivered, _is(seen), within=PATIENCE_S)
    await receiver.close()
    missed = [author.text_to(absent, f"while you were away: {number}") for number in range(5)]
    answers = [await phone.send_until_stored(one, give_up=PATIENCE_S) for one in missed]
    await phone.close()
    return list(zip(missed, answers, strict=True))


async def assert_catches_up(absent: Person, missed: list[tuple[Envelope, Stored]]) -> None:
    """Assert that the person gets all of it in order when they come, and nothing that they have had already."""
    device = await absent.device()
    await device.expect(Delivered, _is(missed[-1][0]), within=PATIENCE_S)
    firsts = {event.envelope.msg_id: event.seq for event in device.inbox.all(Delivered)}
    assert list(firsts.items()) == [(envelope.msg_id, stored.seq) for envelope, stored in missed]
    await device.close()
