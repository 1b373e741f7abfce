"""A message is weighed by what it takes in memory, and not by its bytes."""

import tracemalloc
from collections.abc import Iterator

import pytest
from tlim_protocol.envelope import Envelope
from tlim_protocol.events import StoredMessage, read_out_event
from tlim_protocol.registry import MsgType
from xmpp_bridge.footprint import footprint
from xmpp_bridge.translate import BridgeAddresses, write_deliveries

ADDRESSES = BridgeAddresses("im.example", "bridge.im.example")
LARGE = 200_000
BODIES = {
    "ascii": {"text": "x" * LARGE},
    "emoji": {"text": "x" * LARGE + "😀"},
    "chinese": {"text": "今" * LARGE},
    "one chinese character": {"text": "x" * LARGE + "今"},
    "escaped in XML": {"text": "&" * LARGE + "😀"},
    "escaped in JSON": {"text": "\1" * LARGE},
    "empty lists": {"text": "x", "more": [[]] * 4_900},
    "objects": {"text": "x", "more": [{"a": [1]}] * 2_400},
    "fields": {"text": "x", **{f"k{number}": number + 1_000 for number in range(9_000)}},
    "fractions": {"text": "x", "more": [1.5] * 9_000},
}


@pytest.fixture
def traced() -> Iterator[None]:
    tracemalloc.start()
    yield
    tracemalloc.stop()


@pytest.mark.usefixtures("traced")
@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES.keys())
def test_what_a_delivery_takes_is_told_by_its_footprint(body: dict[str, object]) -> None:
    envelope = Envelope(msg_from="alice", msg_to="bob", msg_id="m1", msg_type=MsgType.TEXT, body=[body])
    data = StoredMessage(seq=1, stored_at=1, recipients=["bob", "carol"], envelope=envelope).to_bytes()
    before, _ = tracemalloc.get_traced_memory()
    event = read_out_event(data)
    assert isinstance(event, StoredMessage)
    stanzas = write_deliveries(event, ADDRESSES, is_kept=False)
    next(stanzas)
    after, _ = tracemalloc.get_traced_memory()
    del stanzas
    assert footprint(data) / 3 < len(data) + after - before < footprint(data) * 1.6
