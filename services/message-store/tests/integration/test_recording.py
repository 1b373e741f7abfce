"""One message through the whole store: stored, published, acknowledged; and everything that can be odd about it."""

from tlim_protocol.errors import ErrorCode
from tlim_protocol.events import RejectedMessage, StoredMessage
from tlim_protocol.registry import MsgType


async def test_a_message_is_stored_then_published_and_acknowledged(world, accepted) -> None:
    async with world.running():
        await world.send(accepted("m1"))
        await world.settled(1)
    (row,) = await world.rows()
    (event,) = await world.out()
    assert isinstance(event, StoredMessage)
    assert (event.seq, event.stored_at, event.recipients) == (row["seq"], row["stored_at"], ["bob"])
