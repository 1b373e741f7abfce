"""Random actions of people in random order: after each step, all people see what a model in memory predicts."""

import asyncio
import itertools
import os
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import AsyncExitStack
from functools import partial
from typing import Any, NamedTuple, TypeVar

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_delay, wait_fixed
from tlim_client.compose import about, group_message, text_message
from tlim_client.failures import RefusedError
from tlim_client.http import HttpClient, Json
from tlim_client.inbox import Carbon, Delivered, Stored
from tlim_client.xmpp import XmppClient
from tlim_devstack.stack import Stack
from tlim_protocol.envelope import Envelope
from tlim_protocol.errors import ErrorCode
from tlim_protocol.registry import REGISTRY, MsgType

from tests.e2e.clients.people import People, Person
from tests.e2e.model import Conversation, Model, Overview, Seen

EXAMPLES = int(os.environ.get("TLIM_E2E_EXAMPLES", "0"))
"""How many histories to live through; 0: a few, always the same ones."""
FEW, STEPS = 5, 50
PEOPLE, SESSIONS, DEVICES = 3, 3, 2
PATIENCE = 20
"""Seconds within which what was changed over HTTP is seen everywhere."""

T = TypeVar("T")
somebody = st.integers(0, PEOPLE - 1)
anything = st.one_of(st.integers(0, 3), st.integers(0, 1_000))
"""Counts messages from the newest one: most of what happens is about the last ones, as in life."""


class Device(NamedTuple):
    """A device of a person, and the place in the log at which it logged in."""

    xmpp: XmppClient
    since: int

    @property
    def heard(self) -> list[tuple[str, bool]]:
        """Messages that it got, also as copies, each once: the msg_id, and whether we sent it. No notices."""
        events = [(event.message, event.sent) if isinstance(event, Carbon) else (event, False)
                  for event in self.xmpp.inbox.history]  # fmt: skip
        envelopes = [(event.envelope, is_ours) for event, is_ours in events if isinstance(event, Delivered)]
        return list(dict.fromkeys(
            (one.msg_id, is_ours) for one, is_ours in envelopes if REGISTRY[one.msg_type].sent_by_clients
        ))  # fmt: skip

    @property
    def came(self) -> list[str]:
        """The msg_ids of messages that others sent."""
        return [msg_id for msg_id, is_ours in self.heard if not is_ours]

    @property
    def copied(self) -> list[str]:
        """The msg_ids of messages that our other devices sent."""
        return [msg_id for msg_id, is_ours in self.heard if is_ours]


class Machine(RuleBasedStateMachine):
    """People who log in and out with up to two devices each; every action is also applied to the model."""

    def __init__(self, stack: Stack, admin_token: str) -> None:
        super().__init__()
        self._runner = asyncio.Runner()
        self._opened = AsyncExitStack()
        self._devices: dict[str, list[Device]] = {}
        self._gone: dict[str, list[Device]] = {}
        self._stored: dict[str, Stored] = {}
        self._switched = 0
        self._texts = (f"text {number}" for number in itertools.count())
        self._run(self._move_in(stack, admin_token))

    # --- what people do --------------------------------------------------------------------------------------------

    @initialize()
    def begin(self) -> None:
        """Begin with a session and messages: Hypothesis picks few rules in a history, and each needs some to act on."""
        first = self.model.users[0]
        self._make_session(first, self.model.users[1:])
        for sender in range(PEOPLE):
            self._write_to_somebody(sender, 1)
            self._write_to_a_session(sender, 0)

    @rule(sender=somebody, shift=st.integers(1, PEOPLE - 1), count=st.integers(1, 3))
    def write_to_somebody(self, sender: int, shift: int, count: int) -> None:
        for _ in range(count):
            self._write_to_somebody(sender, shift)

    @precondition(lambda self: len(self.model.sessions) < SESSIONS)
    @rule(creator=somebody, alone_with=st.one_of(st.none(), st.integers(1, PEOPLE - 1)))
    def make_a_session(self, creator: int, alone_with: int | None) -> None:
        me = self._user(creator)
        others = [user for user in self.model.users if user != me]
        if alone_with is not None:
            others = [self._user(creator + alone_with)]
        self._make_session(me, others)

    @precondition(lambda self: self.model.sessions)
    @rule(sender=somebody, which=anything, count=st.integers(1, 3))
    def write_to_a_session(self, sender: int, which: int, count: int) -> None:
        for _ in range(count):
            self._write_to_a_session(sender, which)

    @precondition(lambda self: self.model.messages)
    @rule(which=anything)
    def send_again(self, which: int) -> None:
        envelope = self.model.log[self._message(which)].envelope
        assert envelope is not None
        self._send_again(envelope)

    @precondition(lambda self: self.model.messages)
    @rule(which=anything, to=somebody, how=st.sampled_from(["body", "conversation", "type"]))
    def use_a_msg_id_for_another_message(self, which: int, to: int, how: str) -> None:
        place = self._message(which)
        envelope = self.model.log[place].envelope
        assert envelope is not None
        sender = envelope.msg_from
        if how == "body":
            other = envelope.model_copy(update={"body": [{**envelope.body[0], "text": "another"}]})
        elif how == "conversation":
            other = text_message(sender, self._user(to), envelope.body[0]["text"])
        else:
            other = self._about(sender, MsgType.RECALL, place)
        self._send_again(other.model_copy(update={"msg_id": envelope.msg_id}))

    @precondition(lambda self: self.model.messages)
    @rule(
        reporter=somebody,
        which=anything,
        more=st.lists(anything, max_size=2),
        kind=st.sampled_from([MsgType.RECEIVED, MsgType.READ]),
    )
    def report(self, reporter: int, which: int, more: list[int], kind: MsgType) -> None:
        first = self._message(which)
        same = [place for place in self.model.messages if self._conversation(place) == self._conversation(first)]
        places = [first, *(same[number % len(same)] for number in more)]
        envelope = self._about(self._user(reporter), kind, *places)
        assert self._answer(envelope) == self.model.report(envelope, places)
        for place in places:
            self._eventually(partial(self._check_ledger, place))

    @precondition(lambda self: self.model.messages)
    @rule(other=st.one_of(st.none(), somebody), which=anything)
    def recall(self, other: int | None, which: int) -> None:
        place = self._message(which)
        self._recall(self.model.log[place].sender if other is None else self._user(other), place)

    @precondition(lambda self: self.model.sessions)
    @rule(who=somebody, which=anything, whom=somebody, how=st.sampled_from(["rename", "add or remove", "delete"]))
    def edit_a_session(self, who: int, which: int, whom: int, how: str) -> None:
        me, session_id, other = self._user(who), self._session(which), self._user(whom)
        client, session = self._http[me], self.model.sessions[session_id]
        if how == "rename":
            refusal = self._edit(client.change_session(session_id, session_name=f"名{whom}"))
            assert refusal == self.model.rename(session_id, me, f"名{whom}")
        elif how == "delete":
            if whom == who or me != self.model.leader(session_id):  # a deleted one is the end of much
                refusal = self._edit(client.delete_session(session_id))
                assert refusal == self.model.delete(session_id, me)
        elif other not in session.members:
            refusal = self._edit(client.change_session(session_id, add=[other]))
            assert refusal == self.model.add(session_id, me, other)
        elif len(session.members) > 1:
            refusal = self._edit(client.change_session(session_id, remove=[other]))
            assert refusal == self.model.remove(session_id, me, other)

    @precondition(lambda self: self.model.inactive or 3 * self._switched < len(self.model.log))  # there is more to do
    @rule(whom=somebody)
    def deactivate_or_activate(self, whom: int) -> None:
        user, active = self._user(whom), bool(self.model.inactive)
        if active:  # never two of three at once
            (user,) = self.model.inactive
            self._run(self._admin.put_user(user, self.model.names[user]))
        else:
            self._run(self._admin.call("DELETE", f"/v1/users/{user}"))
        self.model.activate(user, active=active)
        self._switched += 1

    @rule(whom=somebody, devices=st.integers(0, DEVICES))
    def come_or_leave(self, whom: int, devices: int) -> None:
        user = self._user(whom)
        while len(self._devices[user]) < devices:
            self._come(user)
        while len(self._devices[user]) > devices:
            self._leave(user)

    @rule(whom=somebody, shift=st.integers(1, PEOPLE - 1), is_taken_back=st.booleans())
    def leave_and_miss_a_message(self, whom: int, shift: int, is_taken_back: bool) -> None:
        self.come_or_leave(whom, 0)
        if self._write_to_somebody(whom + shift, PEOPLE - shift) is None and is_taken_back:
            self._recall(self._user(whom + shift), self.model.messages[-1])

    # --- what they see ---------------------------------------------------------------------------------------------

    @precondition(lambda self: self.model.messages)
    @rule(who=somebody, which=anything)
    def search(self, who: int, which: int) -> None:
        user, envelope = self._user(who), self.model.log[self._message(which)].envelope
        assert envelope is not None
        text = envelope.body[0]["text"]

        async def finds_what_it_should() -> None:
            found = await self._http[user].search(text)
            assert [one["msg_id"] for one in found] == self.model.search(user, text)

        self._eventually(finds_what_it_should)  # the index may be a moment behind

    @invariant()
    def everybody_sees_what_the_model_says(self) -> None:
        self._eventually(self._check_everything)

    def teardown(self) -> None:
        """Check that people who were away get everything, then log all people out."""
        try:
            for user in self.model.away.copy():
                self._come(user)
            self._eventually(self._check_everything)
        finally:
            self._run(self._opened.aclose())
            self._runner.close()

    async def _check_everything(self) -> None:
        for user in self.model.users:
            self._check_deliveries(user)
        await asyncio.gather(*(self._check_reader(user) for user in self.model.users))

    async def _check_reader(self, user: str) -> None:
        client, known = self._http[user], self.model.conversations(user)
        names = [self.model.name(user, conversation) for conversation in known]
        listed, (synced, _) = await asyncio.gather(client.conversations(), client.sync())
        histories = await asyncio.gather(*(client.history(name, after=0) for name in names))
        overviews = [self.model.overview(user, conversation) for conversation in known]
        assert [Overview.of(item) for item in listed] == overviews
        assert [Seen.of(item) for item in synced] == self.model.sync(user)
        for conversation, history in zip(known, histories, strict=True):
            assert [Seen.of(item) for item in history] == self.model.history(user, conversation)
        await self._check_sessions(user)

    async def _check_sessions(self, user: str) -> None:
        client, mine = self._http[user], self.model.open_sessions(user)
        assert [one["session_id"] for one in await client.sessions()] == mine
        for session_id, session in self.model.sessions.items():
            if session_id in mine:
                read = await client.session(session_id)
                assert (read["session_name"], read["subscribers"]) == (session.name, session.members)
            else:
                with pytest.raises(RefusedError) as refusal:
                    await client.session(session_id)
                assert refusal.value.code is ErrorCode.SESSION_UNKNOWN

    async def _check_ledger(self, place: int) -> None:
        entry = self.model.log[place]
        assert entry.envelope is not None
        told = await self._http[entry.sender].message(entry.envelope.msg_id)
        reported = {line["user_id"]: (line["delivered_at"] is not None, line["read_at"] is not None)
                    for line in told["receipts"]}  # fmt: skip
        assert reported == {
            user: (kind is not None, kind is MsgType.READ) for user, kind in self.model.ledger(place).items()
        }

    def _check_deliveries(self, user: str) -> None:
        """Assert that each device gets the messages of its time, in order; the first device also gets earlier ones.

        The newest device sends, and the other devices get copies.
        """
        meant, mine = self.model.sent_to(user), self.model.sent_by(user)
        here, devices = self._devices[user], [*self._gone[user], *self._devices[user]]
        came = {msg_id for device in devices for msg_id in device.came}
        assert came <= meant.keys()
        assert not any(user in meant[msg_id].withheld_from for msg_id in came)
        assert {msg_id for device in devices for msg_id in device.copied} <= mine.keys()
        for got, due in (
            *((device.came, self.model.sent_to(user, device.since)) for device in here),
            *((device.copied, self.model.sent_by(user, here[-1].since)) for device in here[:-1]),
            *([] if user in self.model.away else [(came, meant)]),
        ):
            assert all(msg_id in got or entry.recalled for msg_id, entry in due.items())
        for device in devices:
            for conversation in {entry.conversation for entry in self.model.log}:
                told = self.model.order(conversation)
                heard = [msg_id for msg_id, _ in device.heard if msg_id in told]
                assert heard == sorted(heard, key=told.index)

    # --- doing it --------------------------------------------------------------------------------------------------

    async def _move_in(self, stack: Stack, admin_token: str) -> None:
        admin = await self._opened.enter_async_context(HttpClient(stack.addresses.gateway, token=admin_token))
        people = await People(stack, admin, self._opened)(*(f"person{number}" for number in range(PEOPLE)))
        self._people: dict[str, Person] = {one.user_id: one for one in people}
        self._http = {one.user_id: await one.http() for one in people}
        self._admin = admin
        self.model = Model({one.user_id: f"person{number}" for number, one in enumerate(people)})
        for one in people:
            self._devices[one.user_id], self._gone[one.user_id] = [Device(await one.device(), 0)], []

    def _come(self, user: str) -> None:
        self._devices[user].append(Device(self._run(self._people[user].device()), len(self.model.log)))
        self.model.come(user)

    def _leave(self, user: str) -> None:
        device = self._devices[user].pop(0)
        self._run(device.xmpp.close())
        self._gone[user].append(device)
        if not self._devices[user]:
            self.model.leave(user)

    def _device(self, user: str) -> XmppClient:
        """Return the newest device of a person; a person who is away logs in first."""
        if not self._devices[user]:
            self._come(user)
        return self._devices[user][-1].xmpp

    def _user(self, number: int) -> str:
        return self.model.users[number % PEOPLE]

    def _session(self, number: int) -> str:
        return list(self.model.sessions)[number % len(self.model.sessions)]

    def _message(self, number: int) -> int:
        return self.model.messages[-1 - number % len(self.model.messages)]

    def _conversation(self, place: int) -> Conversation:
        return self.model.log[place].conversation

    def _about(self, who: str, kind: MsgType, *places: int) -> Envelope:
        envelopes = [self.model.log[place].envelope for place in places]
        msg_ids, conversation = [one.msg_id for one in envelopes if one is not None], self._conversation(places[0])
        if isinstance(conversation, str):
            return about(who, kind, msg_ids, session_id=conversation)
        return about(who, kind, msg_ids, to=min(conversation - {who}))

    def _recall(self, author: str, place: int) -> None:
        envelope = self._about(author, MsgType.RECALL, place)
        assert self._answer(envelope) == self.model.recall(envelope, place)

    def _write_to_somebody(self, sender: int, shift: int) -> ErrorCode | None:
        return self._send(text_message(self._user(sender), self._user(sender + shift), next(self._texts)))

    def _write_to_a_session(self, sender: int, which: int) -> None:
        self._send(group_message(self._user(sender), self._session(which), MsgType.TEXT, {"text": next(self._texts)}))

    def _make_session(self, creator: str, others: Sequence[str]) -> None:
        refusal = self.model.may_make_session(creator, others)
        request = self._http[creator].add_session(others)
        if refusal is not None:
            assert self._edit(request) == refusal
        else:
            self.model.make_session(self._run(request)["session_id"], creator, others)

    def _send_again(self, envelope: Envelope) -> None:
        """Send a message with a stored msg_id again: it is confirmed as before, or refused."""
        before = self._stored[envelope.msg_id]
        assert self._answer(envelope) == self.model.write_again(envelope)
        assert self._stored[envelope.msg_id] == before

    def _send(self, envelope: Envelope) -> ErrorCode | None:
        refusal = self._answer(envelope)
        assert refusal == self.model.write(envelope)
        return refusal

    def _answer(self, envelope: Envelope) -> ErrorCode | None:
        try:
            stored = self._run(self._device(envelope.msg_from).send_until_stored(envelope))
        except RefusedError as refusal:
            return refusal.code
        self._stored[envelope.msg_id] = stored
        return None

    def _edit(self, request: Coroutine[Any, Any, Json]) -> ErrorCode | None:
        try:
            self._run(request)
        except RefusedError as refusal:
            return refusal.code
        return None

    def _eventually(self, check: Callable[[], Awaitable[None]]) -> None:
        async def until_it_holds() -> None:
            async for attempt in AsyncRetrying(
                retry=retry_if_exception_type(AssertionError),
                wait=wait_fixed(0.05),
                stop=stop_after_delay(PATIENCE),
                reraise=True,
            ):
                with attempt:
                    await check()

        self._run(until_it_holds())

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return self._runner.run(work)


@pytest.mark.timeout(900)
@pytest.mark.proves(
    "GET /v1/search",
    *(MsgType.TEXT, MsgType.GROUP_TEXT, MsgType.RECEIVED, MsgType.READ, MsgType.RECALL),
    *("GET /v1/sync", "GET /v1/conversations", "GET /v1/conversations/{conversation}/messages"),
    *("GET /v1/messages/{msg_id}", ErrorCode.NOT_ALLOWED, ErrorCode.SESSION_UNKNOWN, ErrorCode.MSG_ID_UNKNOWN),
)
def test_whatever_people_do_everybody_sees_what_the_model_says(stack: Stack, admin_token: str) -> None:
    class World(Machine):
        def __init__(self) -> None:
            super().__init__(stack, admin_token)

    run_state_machine_as_test(
        World,
        settings=settings(
            max_examples=EXAMPLES or FEW,
            derandomize=EXAMPLES == 0,
            stateful_step_count=STEPS,
            deadline=None,
            database=None,
            phases=[Phase.generate],  # a history is short enough to read, and shrinking takes minutes
            suppress_health_check=list(HealthCheck),
        ),
    )
