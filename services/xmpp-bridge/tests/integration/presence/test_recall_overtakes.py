"""A recall overtakes the copies that wait in sessions: a client that resumes gets the notice and never the text."""

from typing import Any

import pytest
from tlim_devstack.ejabberd import Ejabberd
from tlim_devstack.prosody import Prosody
from tlim_devstack.xmpp_servers import DOMAIN
from tlim_protocol.stanzas import TLIM_NS

pytestmark = pytest.mark.parametrize(
    "xmpp_server", [Ejabberd, Prosody], indirect=True, ids=lambda kind: kind.package, scope="session"
)


async def stale_device(scene: Any, listener: Any, user: str) -> Any:
    """Return a device that has lost its network and may resume."""
    device = await scene.device(user, "stale", managed=True)
    device.announce()
    await listener.hears("came", device.jid)
    await device.breaks()
    await listener.hears("stale", device.jid)
    return device


async def test_a_client_that_resumes_gets_the_notice_and_not_the_text(scene: Any) -> None:
    listener, user = await scene.listener(), await scene.person()
    phone = await stale_device(scene, listener, user)
    listener.deliver(user, 101, 102)
    listener.deliver(user, 103, recalled=101)
    await listener.barrier()
    await phone.resume(heard=phone.received)
    await phone.gets("text 102", "text 103")
    assert phone.texts == ["text 102", "text 103"]
    phone.confirm()
    await phone.end()
    assert (await listener.hears("gone", phone.jid)).seq == 103, "the count of stanzas is right"


async def test_a_copy_of_what_another_device_got_is_overtaken_too(scene: Any) -> None:
    listener, user = await scene.listener(), await scene.person()
    front = await scene.device(user, "front", managed=False)
    front.announce(5)
    await listener.hears("came", front.jid)
    back = await stale_device(scene, listener, user)
    listener.deliver(user, 101, 102)
    listener.deliver(user, 103, recalled=101)
    await front.gets("text 101", "text 102", "text 103")
    await back.resume(heard=back.received)
    await back.gets("text 103")
    assert back.texts == ["text 102", "text 103"]


async def test_a_device_that_the_notice_does_not_go_to_does_not_get_the_text_either(scene: Any) -> None:
    listener, user = await scene.listener(), await scene.person()
    old = await stale_device(scene, listener, user)
    listener.deliver(user, 101, 102)
    await listener.barrier()
    front = await scene.device(user, "front", managed=False)
    front.announce(5)
    await listener.hears("came", front.jid)
    listener.deliver(user, 103, recalled=101)
    await front.gets("text 103")
    await old.resume(heard=old.received)
    await old.gets("text 103")
    assert old.texts == ["text 102", "text 103"]


async def test_another_authors_message_with_the_same_id_stays(scene: Any) -> None:
    listener, user = await scene.listener(), await scene.person()
    phone = await stale_device(scene, listener, user)
    listener.deliver(user, 101)
    listener.deliver(user, 102, author="dora", recalled=101)
    await listener.barrier()
    await phone.resume(heard=phone.received)
    await phone.gets("text 102")
    assert phone.texts == ["text 101", "text 102"]


async def test_a_user_can_neither_recall_nor_slip_a_message_past_the_bridge(scene: Any) -> None:
    listener, user, author = await scene.listener(), await scene.person(), await scene.person()
    phone, hostile = await stale_device(scene, listener, user), await scene.device(author, managed=False)
    listener.deliver(user, 101, author=author)
    await listener.barrier()
    recalled = f"<recalled xmlns='{TLIM_NS}' msg_id='m101'/><body>hello</body>"
    mark = f"<tlim xmlns='{TLIM_NS}' location='server' seq='7' time='1'/>"
    hostile.send(f"<message type='chat' to='{user}@{DOMAIN}'>{recalled}</message>")
    for address in (f"{user}@{DOMAIN}", phone.jid):
        hostile.send(f"<message type='error' to='{address}'>{mark}{recalled}</message>")
    await hostile.settles()
    await phone.resume(heard=phone.received)
    await phone.gets("hello")
    assert phone.texts == ["text 101", "hello"]
