"""Each test starts from empty streams and its own database."""

import pytest
from tlim_devstack.pytest_plugin import ConnectBroker
from tlim_devstack.servers import NatsServer
from tlim_devstack.streams import newest
from tlim_protocol.streams import BRIDGE_OUTBOXES, PERMISSIONS, StreamName
from tlim_runtime.broker import Broker, BrokerUnavailable

SUBJECT = BRIDGE_OUTBOXES[0].filter_subjects[0].replace("*", "any")


@pytest.mark.parametrize("attempt", ["first", "second"])
async def test_streams_are_empty_for_every_test(broker: Broker, attempt: str) -> None:
    assert await newest(broker, StreamName.OUT) is None
    await broker.publish(SUBJECT, attempt.encode(), message_id="same for both")
    assert await newest(broker, StreamName.OUT) is not None


async def test_a_service_may_publish_only_what_is_its_own(
    clean_jetstream: NatsServer, connect_broker: ConnectBroker
) -> None:
    assert set(PERMISSIONS) <= set(clean_jetstream.passwords)
    store = await connect_broker("message-store")
    await store.publish(SUBJECT, b"its own", message_id="1")
    bridge = await connect_broker("xmpp-bridge")
    with pytest.raises(BrokerUnavailable):
        await bridge.publish(SUBJECT, b"not its own", message_id="2")
