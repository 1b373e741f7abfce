"""A recall overtakes the copies that wait for somebody who is away: he gets the notice and never the text."""

import asyncio
from typing import Any
from xml.sax.saxutils import escape

import pytest
from tlim_client.inbox import Carbon, Delivered, Plain
from tlim_client.xmpp import XmppClient
from tlim_devstack.ejabberd import Ejabberd
from tlim_devstack.prosody import Prosody
from tlim_devstack.supervision import Program
from tlim_protocol.envelope import Envelope, write_envelope
from tlim_protocol.registry import MsgType

both_servers = pytest.mark.parametrize(
    "xmpp_server", [Ejabberd, Prosody], indirect=True, ids=lambda kind: kind.package, scope="session"
)


def envelope_text() -> str:
    envelope = Envelope(msg_from="alice", msg_to="bob", msg_id="forged", msg_type=MsgType.TEXT, body=[{"text": "x"}])
    return escape(write_envelope(envelope))


def recall(*msg_ids: str, author: str = "alice") -> Envelope:
    body = [{"msg_id": msg_id} for msg_id in msg_ids]
    return Envelope(msg_from=author, msg_to="bob", msg_id=f"recall-{msg_ids[0]}", msg_type=MsgType.RECALL, body=body)


@both_servers
async def test_who_was_away_gets_the_notice_and_not_the_text(world: Any, stored: Any, eventually: Any) -> None:
    async with world.ready_bridge():
        await world.publish(*(stored(number) for number in range(5)))
        await world.publish(stored(5, envelope=recall("m1", "m3")))
        await eventually(world.all_acknowledged)
        bob = await world.login("bob")
        arrived = [await bob.expect(Delivered) for _ in range(4)]
        assert [message.envelope.msg_id for message in arrived] == ["m0", "m2", "m4", "recall-m1"]


@both_servers
async def test_who_lost_his_network_gets_the_notice_and_not_the_text(world: Any, stored: Any, eventually: Any) -> None:
    async with world.ready_bridge():
        bob = await world.login("bob")
        await world.publish(stored(0))
        await bob.expect(Delivered)
        bob.break_connection(until_come_back=True)
        await world.publish(stored(1), stored(2), stored(3, envelope=recall("m1")))
        await eventually(world.all_acknowledged)
        bob.come_back()
        assert [(await bob.expect(Delivered)).envelope.msg_id for _ in range(2)] == ["m2", "recall-m1"]
        await world.publish(stored(4))
        assert (await bob.expect(Delivered)).envelope.msg_id == "m4"
        assert len(bob.inbox.history) == 4, "nothing else came, and nothing twice"


@both_servers
async def test_a_recall_of_hundreds_out_of_a_large_storage_holds_up_nobody(
    world: Any, stored: Any, eventually: Any
) -> None:
    many, taken_back = 5_800, range(200, 700)  # of ejabberd's 5,000 for what is not confirmed, more are left
    async with world.ready_bridge():
        await asyncio.gather(*(world.publish(stored(number)) for number in range(many)))
        await eventually(world.all_acknowledged, within_s=120)
        notice = recall(*(f"m{number}" for number in taken_back))
        await world.publish(stored(many, envelope=notice))
        await eventually(world.all_acknowledged)
        bob = await world.login("bob")
        await bob.expect(Delivered, lambda event: event.envelope == notice, within=60)
        left = [f"m{number}" for number in range(many) if number not in taken_back]
        assert [event.envelope.msg_id for event in bob.inbox.all(Delivered)] == [*left, notice.msg_id]


class SmallEjabberd(Ejabberd):
    """One that keeps five messages for somebody who is away."""

    def prepare(self) -> Program:
        program = super().prepare()
        config = self.home / "ejabberd.yml"
        config.write_text(config.read_text().replace("offline_capacity: 10000", "offline_capacity: 5"))
        return program


class SmallProsody(Prosody):
    """One that keeps five messages for somebody who is away."""

    def prepare(self) -> Program:
        program = super().prepare()
        self.config.write_text(f"storage_archive_item_limit = 5\n{self.config.read_text()}")
        return program


@pytest.mark.parametrize(
    "xmpp_server", [SmallEjabberd, SmallProsody], indirect=True, ids=lambda kind: kind.package, scope="session"
)
async def test_a_storage_that_has_no_room_for_the_notice_does_not_give_out_the_text(
    world: Any, stored: Any, eventually: Any
) -> None:
    async with world.ready_bridge():
        await world.publish(*(stored(number) for number in range(7)))
        await world.publish(stored(7, envelope=recall("m1", "m6")), stored(8, envelope=recall("m3")))
        await eventually(world.all_acknowledged)
        bob = await world.login("bob")
        await set_priority(bob, 0)  # so that he is there: what comes before has no room either
        await world.publish(stored(9))
        await bob.expect(Delivered, lambda event: event.envelope.msg_id == "m9")
        arrived = [event.envelope.msg_id for event in bob.inbox.all(Delivered)]
        assert [msg_id for msg_id in arrived if msg_id.startswith("m")] == ["m0", "m2", "m4", "m9"]


# not of Prosody: it looks into its storage when a device logs in, and only then
@pytest.mark.parametrize("fetches", [False, True], ids=["it is sent", "it fetches"])
async def test_a_device_that_wants_nothing_yet_gets_the_notice_and_not_the_text_when_it_does(
    world: Any, stored: Any, eventually: Any, fetches: bool
) -> None:
    async with world.ready_bridge():
        bob = await world.login("bob")
        await set_priority(bob, -1)
        await world.publish(stored(0), stored(1), stored(2, envelope=recall("m0")))
        await eventually(world.all_acknowledged)
        own, offline = bob.address_of("bob"), "http://jabber.org/protocol/offline"  # XEP-0013
        if fetches:
            info = f"<query xmlns='http://jabber.org/protocol/disco#info' node='{offline}'/>"
            bob.send_xml(f"<iq type='get' id='how many' to='{own}'>{info}</iq>")
            await set_priority(bob, -1)
        await set_priority(bob, 0)
        if fetches:
            assert bob.inbox.all(Delivered) == []
            bob.send_xml(f"<iq type='get' id='all' to='{own}'><offline xmlns='{offline}'><fetch/></offline></iq>")
            bob.send_xml(f"<iq type='set' id='done' to='{own}'><offline xmlns='{offline}'><purge/></offline></iq>")
        arrived = [(await bob.expect(Delivered)).envelope.msg_id for _ in range(2)]
        assert (arrived, len(bob.inbox.all(Delivered))) == (["m1", "recall-m0"], 2)


async def set_priority(device: XmppClient, priority: int) -> None:
    """Return when the server knows it: what is for bob goes to his device of the highest, to none below 0."""
    device.send_xml(f"<presence><priority>{priority}</priority></presence>")
    device.send_body("done", device.jid, location=None)
    await device.expect(Plain)


def copies(device: XmppClient) -> list[str]:
    """Return the msg_ids of what went to another device and was copied to this one."""
    messages = [carbon.message for carbon in device.inbox.all(Carbon)]
    return [message.envelope.msg_id for message in messages if isinstance(message, Delivered)]


@both_servers
async def test_a_copy_of_what_another_device_got_is_overtaken_too(world: Any, stored: Any, eventually: Any) -> None:
    async with world.ready_bridge():
        front, other = await world.login("bob"), await world.login("bob")
        await set_priority(front, 5)
        await world.publish(stored(0))
        await other.expect(Carbon, lambda _: copies(other) == ["m0"])
        other.break_connection(until_come_back=True)
        await world.publish(stored(1), stored(2, envelope=recall("m1")), stored(3))
        await front.expect(Delivered, lambda event: event.envelope.msg_id == "m3")
        await eventually(world.all_acknowledged)
        other.come_back()
        await other.expect(Carbon, lambda _: "m3" in copies(other))
        assert copies(other) == ["m0", "recall-m1", "m3"]


@both_servers
async def test_a_device_that_the_notice_does_not_go_to_does_not_get_the_text_either(
    world: Any, stored: Any, eventually: Any
) -> None:
    async with world.ready_bridge():
        old = await world.login("bob")
        await world.publish(stored(0))
        await old.expect(Delivered)
        old.break_connection(until_come_back=True)
        await world.publish(stored(1), stored(2))
        await eventually(world.all_acknowledged)
        front = await world.login("bob")
        await set_priority(front, 5)
        await world.publish(stored(3, envelope=recall("m1")))
        await front.expect(Delivered, lambda event: event.envelope.msg_id == "recall-m1")
        old.come_back()
        await old.expect(Carbon, lambda _: "recall-m1" in copies(old))
        assert [event.envelope.msg_id for event in old.inbox.all(Delivered)] == ["m0", "m2"]


@both_servers
async def test_another_authors_message_with_the_same_id_stays(
    world: Any, envelope: Any, stored: Any, eventually: Any
) -> None:
    async with world.ready_bridge():
        await world.publish(stored(0, envelope=envelope("m0", msg_from="carol")), stored(1, envelope=recall("m0")))
        await eventually(world.all_acknowledged)
        bob = await world.login("bob")
        assert [(await bob.expect(Delivered)).envelope.msg_from for _ in range(2)] == ["carol", "alice"]


@both_servers
async def test_a_user_cannot_take_anything_out_of_a_storage_himself(world: Any, stored: Any, eventually: Any) -> None:
    async with world.ready_bridge():
        alice = await world.login("alice")
        await world.publish(stored(0))
        await eventually(world.all_acknowledged)
        alice.send_xml(
            f"<message type='chat' to='{alice.address_of('bob')}'><body>forged</body>"
            f"<recalled xmlns='{alice.server.domain}' msg_id='m0'/></message>"
        )
        alice.send_body("marker", "bob", location=None)
        bob = await world.login("bob")
        await bob.expect(Plain, lambda message: message.body == "marker")
        assert [message.envelope.msg_id for message in bob.inbox.all(Delivered)] == ["m0"]


@both_servers
async def test_a_message_of_type_error_slips_past_nobody(world: Any, stored: Any, eventually: Any) -> None:
    async with world.ready_bridge():
        alice, bob = await world.login("alice"), await world.login("bob")
        mark = f"<tlim xmlns='{alice.server.domain}' location='server' seq='7' time='1'/>"
        await world.publish(stored(0))
        await bob.expect(Delivered)
        bob.break_connection(until_come_back=True)
        await world.publish(stored(1))
        await eventually(world.all_acknowledged)
        for payload in (f"<recalled xmlns='{alice.server.domain}' msg_id='m1'/>", f"<body>{envelope_text()}</body>"):
            alice.send_xml(f"<message type='error' to='{bob.jid}'>{mark}{payload}</message>")
        alice.send_body("marker", bob.jid, location=None)
        bob.come_back()
        await bob.expect(Plain, lambda message: message.body == "marker")
        assert [message.envelope.msg_id for message in bob.inbox.all(Delivered)] == ["m0", "m1"]
        assert await world.accepted() == []
