"""Looking into a stream, for tests."""

import base64

from tlim_protocol.streams import STORE_INBOXES, ConsumerSpec, store_group
from tlim_runtime.broker import Broker


def inbox_of(conversation_id: str) -> ConsumerSpec:
    """Return the consumer that reads what is accepted for a conversation."""
    return STORE_INBOXES[store_group(conversation_id)]


async def newest(broker: Broker, stream: str) -> bytes | None:
    """Return the payload of a stream's newest message, None when it has none."""
    state = await broker.stream_state(stream)
    if state.messages == 0:
        return None
    stored = (await broker.answered(f"STREAM.MSG.GET.{stream}", seq=state.last_seq))["message"]
    return base64.b64decode(stored.get("data", ""))
