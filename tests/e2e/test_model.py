"""Anything that people may do, in any order: after each step everybody sees what a model in memory says."""

import asyncio
import itertools
import os
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import AsyncExitStack
from functools import partial
from typing import Any, NamedTuple, TypeVar

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test
from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_delay, wait_fixed
from tlim_client.compose import about, group_message, text_message
from tlim_client.failures import RefusedError
from tlim_client.http import HttpClient, Json
from tlim_client.inbox import Delivered, Stored
from tlim_client.xmpp import XmppClient
from tlim_devstack.stack import Stack
from tlim_protocol.envelope import Envelope
from tlim_protocol.errors import ErrorCode
from tlim_protocol.registry import REGISTRY, MsgType

from tests.e2e.clients.people import People
from tests.e2e.model import Conversation, Model, Overview, Seen

EXAMPLES = int(os.environ.get("TLIM_E2E_EXAMPLES", "0"))
"""How many histories to live through; 0: a few, always the same ones."""
FEW, STEPS = 10, 20
PEOPLE, SESSIONS = 3, 2
PATIENCE = 20
"""Seconds within which what was changed over HTTP is seen everywhere."""

T = TypeVar("T")
somebody = st.integers(0, PEOPLE - 1)
anything = st.integers(0, 1_000)


class Device(NamedTuple):
    """One person's two doors."""

    xmpp: XmppClient
    http: HttpClient


class Machine(RuleBasedStateMachine):
    """People with one device each; everything they do is done to the model too."""

    def __init__(self, stack: Stack, admin_token: str) -> None:
        super().__init__()
        self._runner = asyncio.Runner()
        self._opened = AsyncExitStack()
        self._stored: dict[str, Stored] = {}
        self._switched = 0
        self._texts = (f"text {number}" for number in itertools.count())
        self._run(self._move_in(stack, admin_token))

    # --- what people do --------------------------------------------------------------------------------------------

    @rule(sender=somebody, shift=st.integers(1, PEOPLE - 1))
    def write_to_somebody(self, sender: int, shift: int) -> None:
        me, other = self._user(sender), self._user(sender + shift)
        self._send(text_message(me, other, next(self._texts)))

    @precondition(lambda self: len(self.model.sessions) < SESSIONS)
    @rule(creator=somebody, alone_with=st.one_of(st.none(), st.integers(1, PEOPLE - 1)))
    def make_a_session(self, creator: int, alone_with: int | None) -> None:
        me = self._user(creator)
        others = [user for user in self.model.users if user != me]
        if alone_with is not None:
            others = [self._user(creator + alone_with)]
        refusal = self.model.may_make_session(me, others)
        request = self._devices[me].http.add_session(others)
        if refusal is not None:
            assert self._edit(request) == refusal
        else:
            self.model.make_session(self._run(request)["session_id"], me, others)

    @precondition(lambda self: self.model.sessions)
    @rule(sender=somebody, which=anything)
    def write_to_a_session(self, sender: int, which: int) -> None:
        self._send(group_message(self._user(sender), self._session(which), MsgType.TEXT, {"text": next(self._texts)}))

    @precondition(lambda self: self.model.messages)
    @rule(which=anything)
    def send_again(self, which: int) -> None:
        envelope = self.model.log[self._message(which)].envelope
        assert envelope is not None
        again = self._run(self._devices[envelope.msg_from].xmpp.send_until_stored(envelope))
        assert again == self._stored[envelope.msg_id]

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
    @rule(author=somebody, which=anything)
    def recall(self, author: int, which: int) -> None:
        place = self._message(which)
        envelope = self._about(self._user(author), MsgType.RECALL, place)
        assert self._answer(envelope) == self.model.recall(envelope, place)

    @precondition(lambda self: self.model.sessions)
    @rule(who=somebody, which=anything, name=st.sampled_from(["甲", "乙"]))
    def rename_a_session(self, who: int, which: int, name: str) -> None:
        me, session_id = self._user(who), self._session(which)
        refusal = self._edit(self._devices[me].http.change_session(session_id, session_name=name))
        assert refusal == self.model.rename(session_id, me, name)

    @precondition(lambda self: self.model.sessions)
    @rule(who=somebody, which=anything, whom=somebody)
    def add_or_remove(self, who: int, which: int, whom: int) -> None:
        me, session_id, other = self._user(who), self._session(which), self._user(whom)
        client, members = self._devices[me].http, self.model.sessions[session_id].members
        if other not in members:
            refusal = self._edit(client.change_session(session_id, add=[other]))
            assert refusal == self.model.add(session_id, me, other)
        elif len(members) > 1:
            refusal = self._edit(client.change_session(session_id, remove=[other]))
            assert refusal == self.model.remove(session_id, me, other)

    @precondition(lambda self: self.model.sessions)
    @rule(who=somebody, which=anything, really=st.integers(0, 3))
    def delete_a_session(self, who: int, which: int, really: int) -> None:
        me, session_id = self._user(who), self._session(which)
        if really == 0 or me != self.model.sessions[session_id].leader:  # a deleted one is the end of much
            refusal = self._edit(self._devices[me].http.delete_session(session_id))
            assert refusal == self.model.delete(session_id, me)

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

    # --- what they see ---------------------------------------------------------------------------------------------

    @invariant()
    def everybody_sees_what_the_model_says(self) -> None:
        self._eventually(self._check_everything)

    def teardown(self) -> None:
        """Compare what was delivered, then log everybody out."""
        try:
            self._eventually(self._check_deliveries)
        finally:
            self._run(self._opened.aclose())
            self._runner.close()

    async def _check_everything(self) -> None:
        await asyncio.gather(*(self._check_reader(user) for user in self.model.users))

    async def _check_reader(self, user: str) -> None:
        client, known = self._devices[user].http, self.model.conversations(user)
        names = [self.model.name(user, conversation) for conversation in known]
        listed, (synced, _) = await asyncio.gather(client.conversations(), client.sync())
        histories = await asyncio.gather(*(client.history(name, after=0) for name in names))
        overviews = [self.model.overview(user, conversation) for conversation in known]
        assert [_overview(item) for item in listed] == overviews
        assert [_seen(item) for item in synced] == self.model.sync(user)
        for conversation, history in zip(known, histories, strict=True):
            assert [_seen(item) for item in history] == self.model.history(user, conversation)
        await self._check_sessions(user)

    async def _check_sessions(self, user: str) -> None:
        client, mine = self._devices[user].http, self.model.open_sessions(user)
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
        told = await self._devices[entry.sender].http.message(entry.envelope.msg_id)
        reported = {line["user_id"]: (line["delivered_at"] is not None, line["read_at"] is not None)
                    for line in told["receipts"]}  # fmt: skip
        assert reported == {
            user: (kind is not None, kind is MsgType.READ) for user, kind in self.model.ledger(place).items()
        }

    async def _check_deliveries(self) -> None:
        recalled = {entry.envelope.msg_id for entry in self.model.log if entry.envelope and entry.recalled}
        for user in self.model.users:
            came = {
                event.envelope.msg_id
                for event in self._devices[user].xmpp.inbox.all(Delivered)
                if REGISTRY[event.envelope.msg_type].sent_by_clients
            }
            meant = self.model.sent_to(user)
            assert came <= meant
            assert meant - came <= recalled  # the bridge need not deliver what is taken back already

    # --- doing it --------------------------------------------------------------------------------------------------

    async def _move_in(self, stack: Stack, admin_token: str) -> None:
        admin = await self._opened.enter_async_context(HttpClient(stack.addresses.gateway, token=admin_token))
        people = await People(stack, admin, self._opened)(*(f"person{number}" for number in range(PEOPLE)))
        self._devices = {one.user_id: Device(await one.device(), await one.http()) for one in people}
        self._admin = admin
        self.model = Model({one.user_id: f"person{number}" for number, one in enumerate(people)})

    def _user(self, number: int) -> str:
        return self.model.users[number % PEOPLE]

    def _session(self, number: int) -> str:
        return list(self.model.sessions)[number % len(self.model.sessions)]

    def _message(self, number: int) -> int:
        return self.model.messages[number % len(self.model.messages)]

    def _conversation(self, place: int) -> Conversation:
        return self.model.log[place].conversation

    def _about(self, who: str, kind: MsgType, *places: int) -> Envelope:
        envelopes = [self.model.log[place].envelope for place in places]
        msg_ids, conversation = [one.msg_id for one in envelopes if one is not None], self._conversation(places[0])
        if isinstance(conversation, str):
            return about(who, kind, msg_ids, session_id=conversation)
        return about(who, kind, msg_ids, to=min(conversation - {who}))

    def _send(self, envelope: Envelope) -> None:
        assert self._answer(envelope) == self.model.write(envelope)

    def _answer(self, envelope: Envelope) -> ErrorCode | None:
        try:
            stored = self._run(self._devices[envelope.msg_from].xmpp.send_until_stored(envelope))
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


def _overview(item: Json) -> Overview:
    last = _seen(item["last"]) if item["last"] else None
    return Overview(item["conversation"], last, item["unread"], item["session_name"], item["left"], item["deleted"])


def _seen(item: Json) -> Seen:
    is_notice = not REGISTRY[MsgType(item["msg_type"])].sent_by_clients
    assert item["body"] or item["recalled"]
    if is_notice:
        return Seen(item["from"], "", item["recalled"], [])
    return Seen(item["from"], item["msg_id"], item["recalled"], item["body"])


@pytest.mark.timeout(900)
@pytest.mark.proves(
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
