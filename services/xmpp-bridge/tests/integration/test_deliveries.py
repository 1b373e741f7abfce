"""What the store says reaches the devices through a real XMPP server, and is acknowledged only then."""

from typing import Any

import pytest
from tlim_client.inbox import Delivered, Refused, Stored
from tlim_devstack.ejabberd import Ejabberd
from tlim_devstack.prosody import Prosody
from tlim_devstack.streams import newest
from tlim_devstack.supervision import Program
from tlim_protocol.errors import ErrorCode
from tlim_protocol.events import RejectedMessage
from tlim_protocol.identity import delivery_shard
from tlim_protocol.registry import MsgType
from tlim_protocol.streams import BRIDGE_OUTBOXES, StreamName
from tlim_protocol.subjects import subject_out


def firsts(client: Any) -> list[int]:
    """The seqs that came, in the order in which each came for the first time.

    Bridge and test share a process. If that gets no turn for long, a lease lapses, and what was on its way comes again.
    """
    return list(dict.fromkeys(delivered.seq for delivered in client.inbox.all(Delivered)))


async def test_a_stored_message_is_delivered_confirmed_and_acknowledged(
    world: Any, envelope: Any, stored: Any, eventually: Any
) -> None:
    async with world.ready_bridge():
        alice, bob = await world.login("alice"), await world.login("bob")
        message = envelope("<m'1\">", "你好 😀 \u0007 \ufffe")
        await world.publish(stored(envelope=message, reply_to=alice.jid, stanza_id="s1"))
        delivered = await bob.expect(Delivered)
        assert delivered.envelope == message
        assert (delivered.seq, delivered.stanza_id) == (100, "<m'1\">")
        assert delivered.from_jid == f"alice@{alice.server.domain}"
        confirmed = await alice.expect(Stored)
        assert (confirmed.msg_id, confirmed.seq, confirmed.time) == ("<m'1\">", 100, 1_700_000_000_000)
        await eventually(world.all_acknowledged)


async def test_a_rejection_reaches_only_its_sender(world: Any, eventually: Any) -> None:
    async with world.ready_bridge():
        alice, bob = await world.login("alice"), await world.login("bob")
        rejected = RejectedMessage(
            code=ErrorCode.USER_UNKNOWN,
            detail="to 'nobody' is not known",
            field="to",
            msg_id="m1",
            msg_type=MsgType.TEXT,
            sender="alice",
            reply_to=alice.jid,
            stanza_id="s1",
            received_at=1,
            after_seq=0,
        )
        await world.publish(rejected)
        refused = await alice.expect(Refused)
        assert (refused.code, refused.field, refused.stanza_id) == (ErrorCode.USER_UNKNOWN, "to", "s1")
        await eventually(world.all_acknowledged)
        assert (bob.inbox.all(Delivered), bob.inbox.all(Refused)) == ([], [])


async def test_many_messages_arrive_in_the_order_they_were_stored(world: Any, stored: Any, eventually: Any) -> None:
    numbers = range(1200)
    async with world.ready_bridge():
        bob = await world.login("bob")
        await world.publish_all(stored(number) for number in numbers)

        async def have_arrived() -> None:
            assert firsts(bob) == [100 + number for number in numbers]

        await eventually(have_arrived)
        await eventually(world.all_acknowledged)


async def test_who_was_absent_gets_it_at_his_next_login(world: Any, stored: Any, eventually: Any) -> None:
    async with world.ready_bridge():
        await world.publish(stored())
        await eventually(world.all_acknowledged)
        bob = await world.login("bob")
        assert (await bob.expect(Delivered)).delayed


@pytest.mark.parametrize(
    "xmpp_server", [Ejabberd, Prosody], indirect=True, ids=lambda kind: kind.package, scope="session"
)
async def test_who_lost_his_network_gets_all_of_a_busy_hour_when_he_is_back(
    world: Any, stored: Any, eventually: Any
) -> None:
    busy = 1_500
    async with world.ready_bridge():
        bob = await world.login("bob")
        await world.publish(stored(0))
        await bob.expect(Delivered)
        bob.break_connection(until_come_back=True)
        await world.publish_all(stored(number) for number in range(1, busy))
        await eventually(world.all_acknowledged)
        bob.come_back()
        await bob.expect(Delivered, lambda event: event.envelope.msg_id == f"m{busy - 1}", within=60)
        assert firsts(bob) == [100 + number for number in range(busy)]


async def test_poison_is_put_aside_and_its_neighbours_are_delivered(world: Any, stored: Any, eventually: Any) -> None:
    async with world.ready_bridge():
        bob = await world.login("bob")
        await world.publish(stored(1))
        await world.broker.publish(subject_out(MsgType.TEXT, "bob"), b"nonsense", "poison")
        await world.publish(stored(2))
        await bob.expect(Delivered, lambda event: event.seq == 102)
        await eventually(world.all_acknowledged)
        assert firsts(bob) == [101, 102]
        assert await newest(world.broker, StreamName.DEAD) == b"nonsense"


class NarrowProsody(Prosody):
    """One that takes stanzas of a megabyte: it needs seconds to refuse 10 MB."""

    def prepare(self) -> Program:
        program, limit = super().prepare(), "component_stanza_size_limit = 8388608"
        self.config.write_text(self.config.read_text().replace(limit, "component_stanza_size_limit = 1048576"))
        return program


@pytest.mark.parametrize(
    ("xmpp_server", "size"),
    [(Ejabberd, 2_000_000), (NarrowProsody, 250_000)],  # five times as much as XML; ejabberd's limit is 8 MiB
    indirect=["xmpp_server"],
    ids=["ejabberd", "prosody"],
    scope="session",
)
async def test_a_stanza_over_the_servers_limit_is_put_aside_and_its_neighbours_are_delivered(
    world: Any, stored: Any, envelope: Any, eventually: Any, size: int
) -> None:
    async with world.ready_bridge() as bridge:
        bob = await world.login("bob")
        await eventually(lambda: world.mailboxes.is_live("bob"))  # a catch-up leaves such a message out
        too_large = envelope("m2", "&" * size)
        await world.publish(stored(1), stored(2, envelope=too_large), stored(3))
        await bob.expect(Delivered, lambda event: event.seq == 103, within=60)  # after four lost connections
        await eventually(world.all_acknowledged)
        assert {event.seq for event in bob.inbox.all(Delivered)} == {101, 103}
        assert b'"m2"' in (await newest(world.broker, StreamName.DEAD) or b"")
        await eventually(bridge.is_ready)


async def acknowledged_of_bob(world: Any) -> int:
    """Return the sequence up to which everything of bob's shard is acknowledged."""
    durable = BRIDGE_OUTBOXES[delivery_shard("bob")].durable
    return int((await world.broker.answered(f"CONSUMER.INFO.{StreamName.OUT}.{durable}"))["ack_floor"]["stream_seq"])


async def test_nothing_is_acknowledged_while_the_xmpp_server_is_down(world: Any, stored: Any, eventually: Any) -> None:
    async with world.ready_bridge(xmpp_timeout=5) as bridge:
        world.xmpp.stop()

        async def is_red() -> None:
            assert (await bridge.checks())["xmpp"] != "ok"

        await eventually(is_red)
        await world.publish(stored())
        assert await acknowledged_of_bob(world) == 0
        world.xmpp.start()
        await eventually(bridge.is_ready, within_s=60)
        bob = await world.login("bob")
        assert (await bob.expect(Delivered)).seq == 100
        await eventually(world.all_acknowledged)
        assert await acknowledged_of_bob(world) > 0


async def test_who_was_away_while_the_server_was_killed_gets_everything_once_and_nothing_recalled(
    world: Any, stored: Any, eventually: Any
) -> None:
    async with world.ready_bridge(xmpp_timeout=5) as bridge:
        await world.publish(*(stored(number) for number in range(20)))
        await eventually(world.all_acknowledged)
        world.recalls.recalled = {110}
        world.xmpp.stop()

        async def is_red() -> None:
            assert (await bridge.checks())["xmpp"] != "ok"

        await eventually(is_red)
        world.xmpp.start()
        await eventually(bridge.is_ready, within_s=60)
        bob = await world.login("bob")
        await world.publish(stored(20))
        while (await bob.expect(Delivered)).seq != 120:
            pass
        await eventually(world.all_acknowledged)
    assert firsts(bob) == [*range(100, 110), *range(111, 121)]


async def test_a_long_catch_up_delays_nobody_else(world: Any, stored: Any, eventually: Any) -> None:
    many = 3_000
    async with world.ready_bridge():
        alice = await world.login("alice")
        await world.publish_all(stored(number) for number in range(many))
        await eventually(world.all_acknowledged, within_s=60)
        bob = await world.login("bob")
        await bob.expect(Delivered)
        await world.publish(stored(many, recipients=["alice"]))
        await alice.expect(Delivered, lambda event: event.seq == 100 + many)
        had = len(bob.inbox.all(Delivered))
        await bob.expect(Delivered, lambda event: event.seq == 100 + many - 1, within=60)
    assert had < many
    assert firsts(bob) == list(range(100, 100 + many))


async def test_a_server_that_answers_no_more_gets_everything_again(world: Any, stored: Any, eventually: Any) -> None:
    async with world.ready_bridge(xmpp_timeout=5) as bridge:
        bob = await world.login("bob")
        world.xmpp.freeze()
        try:
            await world.publish(stored())

            async def has_noticed() -> None:
                assert (await bridge.checks())["deliveries"] != "ok"

            await eventually(has_noticed)
        finally:
            world.xmpp.thaw()
        assert (await bob.expect(Delivered)).seq == 100
        await eventually(world.all_acknowledged)
        await eventually(bridge.is_ready)


async def test_a_bridge_that_is_stopped_amid_deliveries_loses_none(world: Any, stored: Any, eventually: Any) -> None:
    numbers = range(1500)
    bob = await world.login("bob")
    async with world.ready_bridge():
        await world.publish_all(stored(number) for number in numbers)
    async with world.ready_bridge():

        async def have_arrived() -> None:
            arrived = [delivered.seq for delivered in bob.inbox.all(Delivered)]
            assert list(dict.fromkeys(arrived)) == [100 + number for number in numbers]

        await eventually(have_arrived)
        await eventually(world.all_acknowledged)


async def test_a_wrong_secret_is_a_reason_to_read(world: Any, eventually: Any) -> None:
    async with world.bridge(component_secret="wrong") as bridge:

        async def says_so() -> None:
            assert "not-authorized" in (await bridge.checks())["xmpp"]

        await eventually(says_so)
