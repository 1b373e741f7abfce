"""One read of the socket can hold more than may be in flight, or read at a time: the rest waits, in order."""

import asyncio
import base64
import time
import zlib
from collections.abc import Callable
from typing import Any

import pytest
from structlog.testing import capture_logs
from tlim_protocol.events import AcceptedMessage
from tlim_runtime.logging import NAMED_IN_LOG
from xmpp_bridge import service
from xmpp_bridge.service import BYTES_AT_ONCE, MAX_BYTES_IN_FLIGHT
from xmpp_bridge.translate import read_arrival

BYTES = PEOPLE = 10**8
PACE = 10_000
LARGEST = 1024 * 1024
PACKED = base64.b64encode(zlib.compress(b'[{"text":"%s"}]' % (b"x" * (LARGEST - 100)), 9)).decode()
MANY = 40
"""So many of these are 60 KB on the wire: one read of the socket brings them."""


def take_large(entrance: Any, *numbers: int) -> None:
    for number in numbers:
        entrance.take_text(number, compress="1", body=PACKED)


def msg_ids(entrance: Any) -> list[str]:
    return [AcceptedMessage.from_bytes(one.payload).envelope.msg_id for one in entrance.published]


def expected(*numbers: int) -> list[str]:
    return [f"m{number}" for number in numbers]


def bytes_of(entrance: Any) -> int:
    return sum(len(one.payload) for one in entrance.published)


async def turns(count: int = MANY) -> None:
    for _ in range(2 * count):
        await asyncio.sleep(0)


def acknowledge(entrance: Any) -> None:
    for published in entrance.published:
        if not published.future.done():
            published.succeed()


async def acknowledged_until(entrance: Any, condition: Callable[[], bool]) -> None:
    while not condition():
        acknowledge(entrance)
        await asyncio.sleep(0)


async def test_one_read_of_the_socket_brings_no_more_in_flight_than_the_bound(entrance: Any) -> None:
    take_large(entrance, *range(MANY))
    await turns()
    assert MAX_BYTES_IN_FLIGHT <= bytes_of(entrance) <= MAX_BYTES_IN_FLIGHT + LARGEST
    assert not entrance.door.is_open
    await acknowledged_until(entrance, lambda: len(entrance.published) == MANY)
    acknowledge(entrance)
    await turns()
    assert msg_ids(entrance) == expected(*range(MANY))
    assert entrance.door.is_open


async def test_one_turn_of_the_event_loop_takes_one_large_message(entrance: Any) -> None:
    take_large(entrance, 1, 2, 3)
    entrance.take_text(4)
    entrance.take_text(5)
    seen = [len(entrance.published)]
    assert not entrance.door.is_open, "no other read comes before these are taken over"
    for _ in range(3):
        await asyncio.sleep(0)
        seen.append(len(entrance.published))
    assert seen == [1, 2, 3, 5]
    assert msg_ids(entrance) == expected(1, 2, 3, 4, 5)
    assert entrance.door.is_open


async def test_what_is_refused_takes_its_turn_as_well(entrance: Any) -> None:
    take_large(entrance, 1)
    for number in (2, 3):
        entrance.take_text(number, compress="1", body=PACKED, to="")
    assert (len(entrance.published), entrance.refusals()) == (1, [])
    await asyncio.sleep(0)
    assert len(entrance.refusals()) == 1
    await asyncio.sleep(0)
    assert len(entrance.refusals()) == 2
    acknowledge(entrance)
    await entrance.intake.drained()


async def test_small_messages_do_not_wait_for_another_turn(entrance: Any) -> None:
    numbers = range(200)
    for number in numbers:
        entrance.take_text(number)
    assert bytes_of(entrance) < BYTES_AT_ONCE
    assert msg_ids(entrance) == expected(*numbers)


async def test_what_comes_later_comes_behind_what_waits(entrance: Any) -> None:
    take_large(entrance, *range(MANY))
    await turns()
    entrance.take_text(MANY)
    acknowledge(entrance)
    entrance.take_text(MANY + 1)
    await acknowledged_until(entrance, lambda: len(entrance.published) == MANY + 2)
    assert msg_ids(entrance) == expected(*range(MANY + 2))


async def test_a_stanza_that_cannot_be_read_holds_up_no_other(entrance: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    take_large(entrance, 1)

    def mistaken(*_args: Any) -> Any:
        monkeypatch.setattr(service, "read_arrival", read_arrival)
        raise RuntimeError("a mistake of ours")

    monkeypatch.setattr(service, "read_arrival", mistaken)
    entrance.take_text(2)
    entrance.take_text(3)
    with capture_logs() as lines:
        await turns()
    assert [line["log_level"] for line in lines] == ["error"]
    assert msg_ids(entrance) == expected(1, 3)


async def test_a_message_arrived_when_it_was_read_from_the_socket(
    entrance: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    now_ns = 7_000_000
    monkeypatch.setattr(time, "time_ns", lambda: now_ns)
    take_large(entrance, 1, 2)
    now_ns = 9_000_000
    await turns()
    assert [AcceptedMessage.from_bytes(one.payload).received_at for one in entrance.published] == [7, 7]


async def test_a_lost_connection_drops_what_waits(entrance: Any) -> None:
    take_large(entrance, 1, 2, 3)
    with capture_logs() as lines:
        entrance.intake.connection_lost()
    assert [(line["messages"], line["msg_ids"]) for line in lines] == [(2, ["m2", "m3"])]
    await turns()
    take_large(entrance, 4)
    assert [one.msg_id for one in entrance.published] == ["m1", "m4"]
    acknowledge(entrance)
    await entrance.intake.drained()


async def test_of_many_messages_that_are_dropped_the_first_are_named(entrance: Any) -> None:
    take_large(entrance, *range(30))
    with capture_logs() as lines:
        entrance.intake.connection_lost()
    (line,) = lines
    assert (line["messages"], len(line["msg_ids"])) == (29, NAMED_IN_LOG)


async def test_a_bridge_that_leaves_stores_what_waits_though_its_connection_ends(entrance: Any) -> None:
    take_large(entrance, 1, 2, 3)
    entrance.intake.leave()
    entrance.intake.connection_lost()
    await turns()
    assert msg_ids(entrance) == expected(1, 2, 3)


async def test_draining_waits_for_what_waits(entrance: Any) -> None:
    take_large(entrance, *range(MANY))
    draining = asyncio.ensure_future(entrance.intake.drained())
    await turns()
    before = len(entrance.published)
    for published in entrance.published[: before // 2 - 1]:  # not enough for the others to come
        published.succeed()
    await turns()
    assert (draining.done(), len(entrance.published)) == (False, before)
    await acknowledged_until(entrance, draining.done)
    assert msg_ids(entrance) == expected(*range(MANY))


async def test_draining_ends_when_the_last_that_waited_is_refused(entrance: Any) -> None:
    take_large(entrance, 1)
    entrance.take("nonsense")
    acknowledge(entrance)
    await entrance.intake.drained()
    assert len(entrance.refusals()) == 1


async def test_what_waits_while_the_process_hangs_is_not_stored_when_it_goes_on(entrance: Any) -> None:
    """Its sender may have gone on over another bridge meanwhile."""
    take_large(entrance, 1, 2, 3)
    entrance.door.is_in_doubt = True
    await turns()
    entrance.door.is_in_doubt = False
    await turns()
    assert (msg_ids(entrance), entrance.door.aborted) == (expected(1), 1)
    acknowledge(entrance)
    await turns()
    assert entrance.door.is_open
