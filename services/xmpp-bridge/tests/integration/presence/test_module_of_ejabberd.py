"""What only ejabberd has: several connections of one component, sessions that are killed, a module that starts anew."""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from tlim_devstack.xmpp_servers import DOMAIN
from tlim_protocol.stanzas import HINTS_NS

SM = "urn:xmpp:sm:3"
NO_STORE = f"<no-store xmlns='{HINTS_NS}'/>"
PADDING = f"{NO_STORE}<x xmlns='padding'>{'x' * 200_000}</x>"  # a hundred are more than the sockets take


@pytest.fixture(scope="module")
def xmpp_server(
    start_xmpp_server: Any, fragile_ejabberd: Any, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Any]:
    server = start_xmpp_server(tmp_path_factory.mktemp("fragile"), fragile_ejabberd)
    yield server
    server.stop()


async def test_what_was_written_before_stream_management_counts_when_the_client_confirms_anything(
    scene: Any,
) -> None:
    listener, user = await scene.listener(), await scene.person()
    for heard, confirmed in ((0, None), (1, 101)):
        phone = await scene.device(user, managed=False)
        phone.announce()
        await listener.hears("came", phone.jid)
        listener.deliver(user, 101)
        await phone.gets("text 101")
        await phone.manage(resumable=False)
        await phone.settles()
        phone.send(f"<a xmlns='{SM}' h='{heard}'/>")
        await phone.breaks()
        assert (await listener.hears("gone", phone.jid)).seq == confirmed


async def test_a_session_that_is_killed_is_gone_with_nobody_knows_what(scene: Any) -> None:
    listener, user = await scene.listener(), await scene.person()
    phone = await scene.device(user, managed=True)
    phone.announce()
    came = await listener.hears("came", phone.jid)
    listener.deliver(user, 101)
    await phone.gets("text 101")
    phone.confirm()
    phone.send(f"<message to='{phone.jid}'><body>die</body></message>")
    assert await listener.hears("gone", phone.jid) == ("gone", phone.jid, came.session, None)
    listener.deliver(user, 102)
    await listener.barrier()
    assert listener.missed(user) == [102]


async def given_away(
    scene: Any, user: str, resource: str, listener: Any, other_resource: str = "phone"
) -> tuple[Any, Any]:
    """Return a device whose session was given to a process that waits, and one that can say how it goes on."""
    phone = await scene.device(user, resource, managed=True)
    other = await scene.device(user, other_resource, managed=True)
    for device in (phone, other):
        device.announce()
        await listener.hears("came", device.jid)
    await phone.breaks()
    await phone.ask_to_resume(heard=phone.received)
    other.send(f"<message to='{other.jid}'><body>is it given away</body></message>")
    await other.settles()
    return phone, other


@pytest.mark.parametrize("other_resource", ["a", "z"])  # ejabberd serves sessions in some order
async def test_what_comes_while_a_session_is_given_to_another_process_is_missed(
    scene: Any, other_resource: str
) -> None:
    listener, user = await scene.listener(), await scene.person()
    phone, other = await given_away(scene, user, "late", listener, other_resource)
    listener.deliver(user, 101)
    await other.gets("text 101")
    other.send(f"<message to='{other.jid}'><body>take over</body></message>")
    await phone.take("resumed")
    await listener.misses(user, 101)
    listener.deliver(user, 102)
    await phone.gets("text 102")
    assert listener.missed(user) == [101]


@pytest.mark.parametrize("resource", ["early", "late"])
async def test_a_session_is_gone_if_the_process_that_resumes_it_dies(scene: Any, resource: str) -> None:
    listener, user = await scene.listener(), await scene.person()
    phone, other = await given_away(scene, user, resource, listener)
    other.send(f"<message to='{other.jid}'><body>heir dies</body></message>")
    assert (await listener.hears("gone", phone.jid)).seq is None


async def test_a_session_is_resumed_only_once(scene: Any) -> None:
    listener, user = await scene.listener(), await scene.person()
    phone, other = await given_away(scene, user, "early", listener)
    listener.deliver(user, 101)
    await other.gets("text 101")
    impatient = phone.again()
    await impatient.ask_to_resume(heard=phone.received)
    await impatient.take("failed")
    impatient.lose_network()
    other.send(f"<message to='{other.jid}'><body>take over</body></message>")
    await phone.take("resumed")
    listener.deliver(user, 102)
    await phone.gets("text 102")
    if "text 101" not in phone.texts:  # the old process says so when it ends, which is perhaps not yet
        await listener.misses(user, 101)


async def test_every_connection_is_told_everything_and_all_again_when_the_module_starts_anew(scene: Any) -> None:
    user = await scene.person()
    both = [await scene.listener(), await scene.listener()]
    phone, stale = await scene.device(user, managed=False), await scene.device(user, "stale", managed=True)
    came = {}
    for device in (phone, stale):  # one after the other, for each session speaks for itself
        device.announce()
        came[device] = [await one.hears("came", device.jid) for one in both]
    both[0].deliver(user, 101)
    await stale.gets("text 101")
    stale.confirm()
    await stale.breaks()
    lost = [await one.hears("stale", stale.jid) for one in both]
    assert [one.seq for one in lost] == [101, 101]
    listener = await scene.listener()
    await listener.barrier()
    assert sorted(listener.about(user), key=str) == sorted([came[phone][0], lost[0]], key=str)
    await listener.hears("came", phone.jid)  # what it heard when it connected
    await command(scene.server, "restart_module", module="mod_tlim_bridge")
    for one in (*both, listener):
        await one.hears("hello", DOMAIN)
        assert await one.hears("came", phone.jid) == came[phone][0]
    await phone.end()
    assert [(await one.hears("gone", phone.jid)).seq for one in (*both, listener)] == [101] * 3


async def busy_phone(scene: Any) -> tuple[Any, Any]:
    """Return a listener, and a device that reads nothing: of the texts 101 to 200 some wait in its session."""
    listener, user = await scene.listener(), await scene.person()
    phone = await scene.device(user, managed=False)
    phone.announce()
    await listener.hears("came", phone.jid)
    listener.deliver(user, *range(101, 201), hint=PADDING)
    await listener.barrier()
    return listener, phone


async def test_what_waits_behind_the_end_of_a_stream_is_missed(scene: Any) -> None:
    listener, phone = await busy_phone(scene)
    user = phone.user
    phone.send("</stream:stream>")
    listener.deliver(user, *range(201, 301), hint=PADDING)
    await listener.barrier()
    await phone.gets("text 201")  # the session has read the end and waits again, amid the second hundred
    listener.deliver(user, *range(301, 351))
    await listener.barrier()
    await phone.take("stream")
    gone = await listener.hears("gone", phone.jid)
    await listener.misses(user, *range(gone.seq + 1, 351))
    assert phone.texts == [f"text {seq}" for seq in range(101, gone.seq + 1)]
    assert await scene.kept_for(user) == []


async def test_what_a_broken_session_hands_back_comes_late_to_a_newer_device_unless_it_was_recalled(scene: Any) -> None:
    listener, phone = await busy_phone(scene)
    user = phone.user
    laptop = await scene.device(user, "laptop", managed=False)
    laptop.announce()
    await listener.hears("came", laptop.jid)
    listener.deliver(user, 201, recalled=199)
    await laptop.gets("text 201")
    phone.lose_network()
    await laptop.gets("text 200")
    listener.deliver(user, 202)
    await laptop.gets("text 202")
    assert laptop.late == laptop.texts[1:-1]
    first, *handed_back, last = dict.fromkeys(laptop.texts)
    assert (first, last) == ("text 201", "text 202")
    assert "text 199" not in handed_back, "it was recalled"
    assert handed_back == [f"text {seq}" for seq in range(200 - len(handed_back), 201) if seq != 199]


async def test_a_message_that_the_module_cannot_hand_over_is_refused_and_not_delivered(scene: Any) -> None:
    listener, user, author = await scene.listener(), await scene.person(), await scene.person()
    phone, sender = await scene.device(user, managed=False), await scene.device(author, managed=False)
    phone.announce()
    await listener.hears("came", phone.jid)
    sender.send(f"<message to='{DOMAIN}'><body>lose the settings</body></message>")
    sender.write("undiverted", to=phone.jid)
    while (await sender.take("message")).findtext(".//{*}text") != "Message service offline":
        pass
    sender.send(f"<message to='{DOMAIN}'><body>find the settings</body></message>")
    sender.write("diverted", to=phone.jid)
    await listener.is_sent("diverted")
    await phone.settles()
    assert (listener.diverted, phone.texts) == (["diverted"], [])


async def test_a_connection_without_a_route_ends_at_a_ping_so_that_the_bridge_comes_again(scene: Any) -> None:
    listener, user = await scene.listener(), await scene.person()
    device = await scene.device(user, managed=False)
    device.send(f"<message to='{DOMAIN}'><body>lose the routes</body></message>")
    await device.settles()
    await listener.ends(at_a_ping=True)
    again = await scene.listener()
    await again.barrier()
    device.write("one")
    await again.is_sent("one")


async def test_nothing_is_confirmed_while_the_node_has_lost_its_domain_which_it_finds_again(scene: Any) -> None:
    listener, user = await scene.listener(), await scene.person()
    phone, other = await scene.device(user, managed=False), await scene.device(user, "other", managed=False)
    phone.announce()
    await listener.hears("came", phone.jid)
    listener.deliver(user, 101)
    await phone.gets("text 101")
    await listener.barrier()
    other.send(f"<message to='{DOMAIN}'><body>lose the domain</body></message>")
    await other.gets("lose the domain")
    listener.deliver(user, 102)
    await listener.ends(at_a_ping=True)
    again = await scene.listener()
    await again.hears("came", phone.jid)
    again.deliver(user, 103)
    await phone.gets("text 103")
    await again.barrier()
    assert phone.texts == ["text 101", "text 103"]


async def test_a_node_that_is_lost_while_it_is_asked_is_not_taken_for_one_that_waits_for_tables(scene: Any) -> None:
    """An error in place of the third answer ended the watcher of splits, and nothing starts that again."""
    phone = await scene.device(await scene.person(), managed=False)
    phone.send(f"<message to='{DOMAIN}'><body>does it wait</body></message>")
    await phone.take("message")
    assert phone.texts == ["[true,false,false]"], "of a node without us, of one with us, and of one that is lost"


async def test_a_session_ends_when_its_node_looks_again_and_its_account_was_closed(scene: Any) -> None:
    """Another node did so in a split: the caches here know nothing of it, and nobody has ended the session."""
    phone, laptop = [await scene.device(await scene.person(), managed=False) for _ in range(2)]
    laptop.send(f"<message to='{phone.jid}'><body>change the password</body></message>")
    await laptop.settles()
    await phone.settles()
    laptop.send(f"<message to='{laptop.jid}'><body>look again</body></message>")
    await phone.take("stream")
    await laptop.settles()


async def test_an_account_that_is_closed_while_its_session_is_resumed_lets_nobody_on(scene: Any) -> None:
    """The old process is kicked, and the new one is not known yet."""
    listener, user = await scene.listener(), await scene.person()
    neighbour = await scene.device(await scene.person(), managed=False)
    phone, _ = await given_away(scene, user, "late", listener)
    await command(scene.server, "change_password", user=user, newpass="another")
    await command(scene.server, "kick_user", user=user)
    neighbour.send(f"<message to='{neighbour.jid}'><body>take over</body></message>")
    await phone.take("resumed")
    await phone.take("stream")


async def test_a_resumed_session_goes_on_while_the_database_is_away_and_ends_when_that_says_that_its_account_is_closed(
    scene: Any,
) -> None:
    listener, user = await scene.listener(), await scene.person()
    phone, other = await given_away(scene, user, "late", listener)
    other.send(f"<message to='{phone.jid}'><body>lose the database</body></message>")
    other.send(f"<message to='{phone.jid}'><body>take over</body></message>")
    await phone.take("resumed")
    for _ in range(2):  # by the second one it has looked
        await phone.settles()
    await scene.server.register(user, "another")
    await phone.take("stream")


async def command(server: Any, name: str, **arguments: str) -> None:
    url, secret = f"http://127.0.0.1:{server.ports.xmpp_api}/api/{name}", server.credentials.xmpp_api
    headers = {"Authorization": f"Bearer {secret}"}
    async with httpx.AsyncClient(trust_env=False, headers=headers, timeout=30) as http:
        answer = await http.post(url, json={"host": DOMAIN, **arguments})
    assert answer.is_success, answer.text
