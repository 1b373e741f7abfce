"""Going on where the release before has stopped, which had one consumer for all shards.

A store of that release has a lock alone that the stores of this one share (locks.py). So only one release consumes,
also while instances are replaced one after the other, and after the release before was installed again. What that
release has stored is not delivered again here: the senders would be told a second time.
"""

from tlim_protocol.streams import UNGROUPED_STORE_INBOX, ConsumerSpec
from tlim_runtime.broker import Broker
from tlim_runtime.logging import get_logger
from tlim_runtime.outages import BrokerUnavailable

logger = get_logger(__name__)

_NO_CONSUMER = 10014  # JetStream's err_code


async def pass_over_stored(broker: Broker, spec: ConsumerSpec) -> None:
    """Let a group begin behind what the release before has stored; raises BrokerUnavailable.

    Only for the store that has the group, before it consumes. A group that is further already stays there.
    """
    name = _name(UNGROUPED_STORE_INBOX)
    earlier = await broker.api(f"CONSUMER.INFO.{name}")
    if earlier.get("error", {}).get("err_code") == _NO_CONSUMER:
        return
    if "error" in earlier:
        raise BrokerUnavailable(f"{name}: {earlier['error'].get('description')}")
    stored = earlier["ack_floor"]["stream_seq"]
    if (await broker.stream_state(UNGROUPED_STORE_INBOX.stream)).last_seq < stored:
        return  # the server has lost messages, and gives their sequence numbers to new ones, which nobody has stored
    info = await broker.answered(f"CONSUMER.INFO.{_name(spec)}")
    if info["ack_floor"]["stream_seq"] < stored:
        await broker.answered(f"CONSUMER.RESET.{_name(spec)}", seq=stored + 1)
        logger.info("goes on behind the release before", durable=spec.durable, stream_seq=stored)


def _name(spec: ConsumerSpec) -> str:
    return f"{spec.stream}.{spec.durable}"
