"""What clients send over a real XMPP server is in JetStream afterwards, or they have been told why not."""

from typing import Any

from tlim_client.inbox import Plain, Refused
from tlim_protocol.envelope import MAX_STANZA_BYTES
from tlim_protocol.errors import ErrorCode
from tlim_protocol.streams import StreamName


async def test_a_message_is_published_with_who_sent_it(world: Any, envelope: Any, eventually: Any) -> None:
    text = "你好 😀 <b>\"'&"
    async with world.ready_bridge():
        alice = await world.login("alice")
        stanza_id = alice.send(envelope("m1", text))

        async def is_published() -> None:
            (message,) = await world.accepted()
            assert message.envelope == envelope("m1", text)
            assert (message.sender, message.reply_to) == ("alice", alice.jid)
            assert (message.stanza_id, message.location) == (stanza_id, "mobile")

        await eventually(is_published)


async def test_messages_of_one_sender_keep_their_order(world: Any, envelope: Any, eventually: Any) -> None:
    sent = [f"m{number}" for number in range(200)]
    async with world.ready_bridge():
        alice = await world.login("alice")
        for msg_id in sent:
            alice.send(envelope(msg_id))

        async def are_published() -> None:
            assert [message.envelope.msg_id for message in await world.accepted()] == sent

        await eventually(are_published)


async def test_a_forged_from_in_the_envelope_is_refused(world: Any, envelope: Any) -> None:
    async with world.ready_bridge():
        alice = await world.login("alice")
        stanza_id = alice.send(envelope("m1", msg_from="bob"))
        refused = await alice.expect(Refused)
        assert (refused.code, refused.body) == (ErrorCode.FROM_NOT_SENDER, ErrorCode.FROM_NOT_SENDER.value)
        assert (refused.msg_id, refused.field, refused.stanza_id) == ("m1", "from", stanza_id)
        assert await world.accepted() == []


async def test_what_is_no_envelope_is_refused(world: Any) -> None:
    async with world.ready_bridge():
        alice = await world.login("alice")
        for body, code in {"nonsense": ErrorCode.JSON_INVALID, None: ErrorCode.BODY_EMPTY}.items():
            stanza_id = alice.send_body(body, "bob")
            refused = await alice.expect(Refused)
            assert (refused.code, refused.stanza_id) == (code, stanza_id)


async def test_an_oversized_message_is_refused_and_the_sender_stays_connected(world: Any, envelope: Any) -> None:
    async with world.ready_bridge():
        alice = await world.login("alice")
        alice.send(envelope("m1", "x" * MAX_STANZA_BYTES))
        assert (await alice.expect(Refused)).code is ErrorCode.FIELD_INVALID
        alice.send_body("nonsense", "bob")
        assert (await alice.expect(Refused)).code is ErrorCode.JSON_INVALID
        assert await world.accepted() == []


async def test_nobody_breaks_the_connection_of_all_with_one_stanza(world: Any) -> None:
    depth = 1_200  # deeper than Python's own recursion goes
    async with world.ready_bridge() as bridge:
        alice = await world.login("alice")
        alice.send_xml(
            f"<message type='chat' to='{alice.address_of('bob')}'><tlim xmlns='{alice.server.domain}'/>"
            f"<body>{'x' * 50_000}</body><x xmlns='deep'>{'<a>' * depth}{'</a>' * depth}</x></message>"
        )
        assert (await alice.expect(Refused)).code is ErrorCode.FIELD_INVALID
        assert (await bridge.checks())["xmpp"] == "ok"


async def test_ordinary_chat_does_not_pass_through_the_bridge(world: Any, envelope: Any, eventually: Any) -> None:
    async with world.ready_bridge() as bridge:
        alice, bob = await world.login("alice"), await world.login("bob")
        alice.send_body("hello", "bob", location=None)
        assert (await bob.expect(Plain)).body == "hello"
        alice.send(envelope("m1"))

        async def it_alone_arrived() -> None:
            assert [one.envelope.msg_id for one in await world.accepted()] == ["m1"]

        await eventually(it_alone_arrived)
        assert 'tlim_bridge_inbound_total{outcome="ignored"} 0.0' in (await bridge.http.get("/metrics")).text


async def test_a_resend_reaches_the_store_again(world: Any, envelope: Any, eventually: Any) -> None:
    async with world.ready_bridge():
        alice = await world.login("alice")
        for _ in range(2):
            alice.send(envelope("m1"))

        async def are_published() -> None:
            assert [message.envelope.msg_id for message in await world.accepted()] == ["m1", "m1"]

        await eventually(are_published)


async def test_without_jetstream_the_sender_hears_try_again_and_readiness_is_red(world: Any, envelope: Any) -> None:
    async with world.ready_bridge() as bridge:
        alice = await world.login("alice")
        await world.broker.api(f"STREAM.DELETE.{StreamName.IN}")
        stanza_id = alice.send(envelope("m1"))
        refused = await alice.expect(Refused)
        assert (refused.code, refused.msg_id) == (ErrorCode.UNAVAILABLE, "m1")
        assert refused.stanza_id == stanza_id
        assert (await bridge.checks())["publishing"] != "ok"


async def test_the_bridge_stops_without_losing_what_it_took_over(world: Any, envelope: Any, eventually: Any) -> None:
    sent = [f"m{number}" for number in range(300)]
    async with world.ready_bridge():
        alice = await world.login("alice")
        for msg_id in sent:
            alice.send(envelope(msg_id))

        async def has_begun() -> None:
            assert await world.accepted()

        await eventually(has_begun)
    published = [message.envelope.msg_id for message in await world.accepted()]
    assert published == sent[: len(published)]
