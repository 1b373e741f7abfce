"""The XMPP server's module tells the bridge who is there, who has gone with what, and what reached nobody."""

import re
from typing import Any

import pytest
from tlim_devstack.ejabberd import Ejabberd
from tlim_devstack.prosody import Prosody
from tlim_devstack.supervision import Program
from tlim_devstack.xmpp_servers import COMPONENT, DOMAIN
from tlim_protocol.stanzas import CARBONS_NS, TLIM_NS


class HastyEjabberd(Ejabberd):
    """One that waits one second for a client that lost its network."""

    def prepare(self) -> Program:
        program, config = super().prepare(), self.home / "ejabberd.yml"
        config.write_text(config.read_text().replace("resume_timeout: 120s", "resume_timeout: 1s"))
        return program


class HastyProsody(Prosody):
    """One that waits one second for a client that lost its network."""

    def prepare(self) -> Program:
        program = super().prepare()
        config = re.sub("(?m)^smacks_hibernation_time.*$", "", self.config.read_text())
        self.config.write_text(f"smacks_hibernation_time = 1\n{config}")
        return program


def each_of(*kinds: type[Ejabberd | Prosody]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("xmpp_server", kinds, indirect=True, ids=lambda kind: kind.package, scope="session")


both_servers = each_of(Ejabberd, Prosody)
both_in_a_hurry = each_of(HastyEjabberd, HastyProsody)


@both_servers
async def test_a_new_connection_hears_hello_and_then_of_everybody_who_is_there(scene: Any) -> None:
    user = await scene.person()
    phone, tablet, silent = [await scene.device(user, name, managed=False) for name in ("phone", "tablet", "silent")]
    phone.announce()
    tablet.announce(-1)
    for device in (phone, tablet, silent):
        await device.settles()
    listener = await scene.listener()
    await listener.barrier()
    assert listener.words[0] == ("hello", DOMAIN, "", None)
    (word,) = listener.about(user)
    assert (word.what, word.jid) == ("came", phone.jid)
    assert re.fullmatch(r"[!-~]{1,64}", word.session)


@both_servers
async def test_a_session_is_there_while_it_wants_messages_and_each_login_is_another_one(scene: Any) -> None:
    listener, user = await scene.listener(), await scene.person()
    phone = await scene.device(user, managed=False)
    phone.announce()
    first = await listener.hears("came", phone.jid)
    for leave in ("<presence type='unavailable'/>", "<presence><priority>-1</priority></presence>"):
        phone.send(leave)
        assert await listener.hears("gone", phone.jid) == ("gone", phone.jid, first.session, None)
        phone.announce(3)
        assert await listener.hears("came", phone.jid) == first
    await phone.end()
    assert (await listener.hears("gone", phone.jid)).session == first.session
    second = await scene.device(user, managed=False)
    second.announce(-1)
    second.announce()
    assert (await listener.hears("came", phone.jid)).session != first.session
    await listener.barrier()
    assert [word.what for word in listener.about(user)] == ["came", "gone"] * 3 + ["came"]


@both_servers
@pytest.mark.parametrize("unconfirmed", [0, 2])
@pytest.mark.parametrize("is_orderly", [True, False], ids=["in order", "broken"])
async def test_with_stream_management_what_the_client_confirmed_counts(
    scene: Any, is_orderly: bool, unconfirmed: int
) -> None:
    listener, user = await scene.listener(), await scene.person()
    phone = await scene.device(user, managed=True, resumable=False)
    phone.announce()
    await listener.hears("came", phone.jid)
    listener.deliver(user, 101, 102, 103)
    await phone.gets("text 101", "text 102", "text 103")
    phone.confirm(but=unconfirmed)
    await (phone.end() if is_orderly else phone.breaks())
    assert (await listener.hears("gone", phone.jid)).seq == 103 - unconfirmed


@both_servers
async def test_without_stream_management_only_an_orderly_end_says_what_the_client_has(scene: Any) -> None:
    listener, user = await scene.listener(), await scene.person()
    for leave, confirmed in (("end", 103), ("withdraw", 103), ("breaks", None), ("replaced", None)):
        phone = await scene.device(user, managed=False)
        phone.announce()
        await listener.hears("came", phone.jid)
        listener.deliver(user, 101, 102, 103)
        await phone.gets("text 101", "text 102", "text 103")
        await getattr(phone, leave)()
        assert (await listener.hears("gone", phone.jid)).seq == confirmed, leave
    quiet = await scene.device(user, managed=False)
    quiet.announce()
    await listener.hears("came", quiet.jid)
    await quiet.end()
    assert (await listener.hears("gone", quiet.jid)).seq is None


@both_servers
async def test_a_client_that_may_resume_is_stale_and_then_the_same_session_again(scene: Any) -> None:
    listener, user = await scene.listener(), await scene.person()
    phone = await scene.device(user, managed=True)
    phone.announce()
    came = await listener.hears("came", phone.jid)
    listener.deliver(user, 101)
    await phone.gets("text 101")
    phone.confirm()
    await phone.breaks()
    assert await listener.hears("stale", phone.jid) == ("stale", phone.jid, came.session, 101)
    listener.deliver(user, 102)
    await listener.barrier()
    await phone.resume(heard=phone.received)
    assert await listener.hears("came", phone.jid) == came
    await phone.gets("text 102")
    assert phone.texts == ["text 101", "text 102"]
    phone.confirm()
    await phone.end()
    assert await listener.hears("gone", phone.jid) == ("gone", phone.jid, came.session, 102)
    assert listener.missed(user) == []


@both_in_a_hurry
async def test_what_waits_for_a_client_that_never_resumes_is_missed_and_not_stored(scene: Any) -> None:
    listener, user = await scene.listener(), await scene.person()
    phone = await scene.device(user, managed=True)
    phone.announce()
    await listener.hears("came", phone.jid)
    listener.deliver(user, 101, 102)
    await phone.gets("text 101", "text 102")
    phone.confirm(but=1)
    await phone.breaks()
    stale = await listener.hears("stale", phone.jid)
    listener.chat(user, "ordinary")
    listener.deliver(user, 103, 104)
    assert await listener.hears("gone", phone.jid) == ("gone", phone.jid, stale.session, 101)
    await listener.misses(user, 102, 103, 104)
    assert stale.seq == 101
    assert await scene.kept_for(user) == ["ordinary"]


@both_in_a_hurry
async def test_what_a_second_device_has_got_is_not_missed_and_its_author_hears_nothing(scene: Any) -> None:
    listener, user = await scene.listener(), await scene.person()
    phone, laptop = await scene.device(user, managed=True), await scene.device(user, "laptop", managed=False)
    for device in (phone, laptop):
        device.announce()
        await listener.hears("came", device.jid)
    await phone.breaks()
    listener.deliver(user, 101)
    await laptop.gets("text 101")
    await listener.hears("gone", phone.jid)
    await laptop.settles()
    await listener.barrier()
    assert (listener.missed(user), listener.about("carol"), laptop.texts) == ([], [], ["text 101"])


@both_servers
async def test_what_reaches_nobody_is_missed_before_the_answer_to_a_ping_and_not_stored(scene: Any) -> None:
    listener, user = await scene.listener(), await scene.person()
    phone = await scene.device(user, managed=False)
    phone.announce(-1)
    await phone.settles()
    seqs = list(range(101, 151))
    listener.deliver(user, *seqs)
    listener.chat(user, "ordinary")
    await listener.barrier()
    assert listener.missed(user) == seqs
    await phone.end()
    assert await scene.kept_for(user) == ["ordinary"]


@both_servers
async def test_an_older_bridge_which_forbids_no_storing_is_served_as_ever(scene: Any) -> None:
    listener, user = await scene.listener(), await scene.person()
    listener.deliver(user, 101, 102, hint="")
    await listener.barrier()
    assert listener.missed(user) == []
    assert await scene.kept_for(user) == ["text 101", "text 102"]


@both_servers
@pytest.mark.parametrize("managed", [False, True], ids=["unmanaged", "managed"])
@pytest.mark.parametrize("is_orderly", [True, False], ids=["in order", "broken"])
async def test_of_a_session_that_ends_amid_a_stream_each_message_has_come_or_is_missed(
    scene: Any, is_orderly: bool, managed: bool
) -> None:
    listener, user = await scene.listener(), await scene.person()
    phone = await scene.device(user, managed=managed, resumable=False)
    phone.announce()
    await listener.hears("came", phone.jid)
    listener.deliver(user, *range(101, 301))
    await phone.gets("text 101")
    if managed:
        phone.confirm()
    await (phone.end() if is_orderly else phone.breaks())
    listener.deliver(user, *range(301, 501))
    confirmed = (await listener.hears("gone", phone.jid)).seq
    listener.deliver(user, 501)  # all before it may have been written to the dead socket
    await listener.misses(user, 501)
    if confirmed is None:
        assert (is_orderly, managed) == (False, False)
        confirmed = min(listener.missed(user)) - 1
    assert 101 <= confirmed < 501
    await listener.misses(user, *range(confirmed + 1, 502))
    assert is_orderly is False or phone.texts[: confirmed - 100] == [f"text {seq}" for seq in range(101, confirmed + 1)]
    assert await scene.kept_for(user) == []


@both_servers
async def test_copies_for_a_second_device_count_as_what_it_got(scene: Any) -> None:
    listener, user = await scene.listener(), await scene.person()
    front, back = [await scene.device(user, name, managed=True) for name in ("front", "back")]
    front.announce(5)
    back.announce(0)
    await listener.hears("came", front.jid)
    await back.settles()
    listener.deliver(user, 101, 102)
    await back.gets("text 101", "text 102")
    back.confirm(but=1)
    await back.end()
    assert (await listener.hears("gone", back.jid)).seq == 101


@both_servers
async def test_a_client_cannot_speak_to_the_bridge_as_the_module_does(scene: Any) -> None:
    listener, user = await scene.listener(), await scene.person()
    phone = await scene.device(user, managed=False)
    for words in (f"<session xmlns='{TLIM_NS}' id='made up'/>", f"<missed xmlns='{TLIM_NS}' seq='1'/>"):
        for kind in ("", "type='unavailable'"):
            for component in (COMPONENT, f"bob@{COMPONENT}", f"{COMPONENT}/res"):
                phone.send(f"<presence {kind} to='{component}'>{words}</presence>")
    phone.announce()
    await listener.hears("came", phone.jid)
    await listener.barrier()
    assert [word.what for word in listener.about(user)] == ["came"]


@both_servers
async def test_a_client_cannot_make_another_client_confirm_anything(scene: Any) -> None:
    listener, user, forger = await scene.listener(), await scene.person(), await scene.person()
    phone, other = await scene.device(user, managed=False), await scene.device(forger, managed=False)
    phone.announce()
    await listener.hears("came", phone.jid)
    listener.deliver(user, 101)
    message = f"<message xmlns='jabber:client'><body>forged</body><tlim xmlns='{TLIM_NS}' seq='999'/></message>"
    forged = f"<received xmlns='{CARBONS_NS}'><forwarded xmlns='urn:xmpp:forward:0'>{message}</forwarded></received>"
    other.send(f"<message type='chat' to='{phone.jid}'>{forged}</message>")
    await phone.gets("text 101", "forged")
    await phone.end()
    assert (await listener.hears("gone", phone.jid)).seq == 101


@both_servers
async def test_what_one_device_has_not_confirmed_is_neither_missed_nor_bounced_while_another_is_there(
    scene: Any,
) -> None:
    listener, user, author = await scene.listener(), await scene.person(), await scene.person()
    phone, laptop = [await scene.device(user, name, managed=True, resumable=False) for name in ("phone", "laptop")]
    sender = await scene.device(author, managed=False)
    for device in (sender, phone, laptop):
        device.announce()
        await listener.hears("came", device.jid)
    listener.deliver(user, 101, author=author)
    for device in (phone, laptop):
        await device.gets("text 101")
    laptop.confirm()
    await phone.breaks()
    assert (await listener.hears("gone", phone.jid)).seq == 100
    await listener.barrier()
    assert listener.missed(user) == []
    sender.send(f"<message type='chat' to='{sender.jid}'><body>all</body></message>")
    await sender.gets("all")
    assert sender.texts == ["all"]
    await laptop.end()
    assert (await listener.hears("gone", laptop.jid)).seq == 101


@both_servers
async def test_a_browser_that_closes_its_stream_has_everything(scene: Any) -> None:
    listener, user = await scene.listener(), await scene.person()
    for is_orderly in (True, False):
        async with scene.browser(user) as socket:
            came = await listener.hears("came", f"{user}@{DOMAIN}")
            listener.deliver(user, 101)
            while "text 101" not in await socket.receive_str(timeout=20):
                pass
            if is_orderly:
                await socket.send_str("<close xmlns='urn:ietf:params:xml:ns:xmpp-framing'/>")
        assert (await listener.hears("gone", came.jid)).seq == (101 if is_orderly else None)


@both_servers
async def test_a_browser_that_is_reloaded_is_gone_and_what_waited_for_it_is_not_lost(scene: Any) -> None:
    listener, user = await scene.listener(), await scene.person()
    async with scene.browser(user, resumable=True):
        came = await listener.hears("came", f"{user}@{DOMAIN}")
    await listener.hears("stale", came.jid)
    listener.chat(user, "ordinary")
    listener.deliver(user, 101, 102)
    await listener.barrier()
    await scene.device(user, came.jid.partition("/")[2], managed=False)
    assert await listener.hears("gone", came.jid) == ("gone", came.jid, came.session, 100)
    await listener.misses(user, 101, 102)
    assert await scene.kept_for(user) == ["ordinary"]
