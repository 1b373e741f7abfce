"""The system and the model side by side: what people do is done in both, and what they see is compared."""

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import AsyncExitStack
from functools import partial
from typing import Any, NamedTuple, TypeVar

import pytest
from tenacity import retry_if_exception_type
from tlim_client.compose import about, group_message, text_message
from tlim_client.failures import RefusedError
from tlim_client.http import HttpClient, Json
from tlim_client.inbox import Carbon, Delivered, Stored
from tlim_client.xmpp import XmppClient
from tlim_devstack.stack import Stack
from tlim_protocol.envelope import Envelope
from tlim_protocol.errors import ErrorCode
from tlim_protocol.registry import REGISTRY, MsgType

from tests.e2e.clients.patience import patiently
from tests.e2e.clients.people import People, Person
from tests.e2e.model import Model
from tests.e2e.views import Conversation, Overview, Seen

PEOPLE = 3

T = TypeVar("T")


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


class World:
    """A few people with devices, and the model of what they see. Numbers name users, sessions and messages.

    Each action asserts that the system answers as the model does.
    """

    def __init__(self, stack: Stack) -> None:
        self._runner = asyncio.Runner()
        self._opened = AsyncExitStack()
        self.devices: dict[str, list[Device]] = {}
        self._gone: dict[str, list[Device]] = {}
        self._stored: dict[str, Stored] = {}
        self._texts = (f"text {number}" for number in itertools.count())
        try:
            self.run(self._move_in(stack))
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Log all people out."""
        self.run(self._opened.aclose())
        self._runner.close()

    # --- what is done ----------------------------------------------------------------------------------------------

    async def _move_in(self, stack: Stack) -> None:
        token = stack.admin_token()  # for each history: it is good for an hour, and all of them can take longer
        admin = await self._opened.enter_async_context(HttpClient(stack.addresses.gateway, token=token))
        make = partial(People(stack, admin, self._opened), *(f"person{number}" for number in range(PEOPLE)))
        people = await patiently(make)
        self._people: dict[str, Person] = {one.user_id: one for one in people}
        self.http = {one.user_id: await patiently(one.http) for one in people}
        self.model = Model({one.user_id: f"person{number}" for number, one in enumerate(people)})
        for one in people:
            self.devices[one.user_id], self._gone[one.user_id] = [Device(await one.device(), 0)], []

    def come(self, user: str) -> None:
        """A user logs in with one more device."""
        self.devices[user].append(Device(self.run(self._people[user].device()), len(self.model.log)))
        self.model.come(user)

    def leave(self, user: str) -> None:
        """A user closes their oldest device."""
        device = self.devices[user].pop(0)
        self.run(device.xmpp.close())
        self._gone[user].append(device)
        if not self.devices[user]:
            self.model.leave(user)

    def _device(self, user: str) -> XmppClient:
        """Return the newest device of a person; a person who is away logs in first."""
        if not self.devices[user]:
            self.come(user)
        return self.devices[user][-1].xmpp

    def user(self, number: int) -> str:
        """Return a user id."""
        return self.model.users[number % PEOPLE]

    def session(self, number: int) -> str:
        """Return the id of a session."""
        return list(self.model.sessions)[number % len(self.model.sessions)]

    def message(self, number: int) -> int:
        """Return the place in the log of a message, counted from the newest one."""
        return self.model.messages[-1 - number % len(self.model.messages)]

    def conversation(self, place: int) -> Conversation:
        """Return the conversation of what is at that place of the log."""
        return self.model.log[place].conversation

    def about(self, who: str, kind: MsgType, *places: int) -> Envelope:
        """Return a receipt or recall of messages, by their places in the log."""
        envelopes = [self.model.log[place].envelope for place in places]
        msg_ids, conversation = [one.msg_id for one in envelopes if one is not None], self.conversation(places[0])
        if isinstance(conversation, str):
            return about(who, kind, msg_ids, session_id=conversation)
        return about(who, kind, msg_ids, to=min(conversation - {who}))

    def recall(self, author: str, place: int) -> None:
        """A user recalls the message at that place of the log."""
        envelope = self.about(author, MsgType.RECALL, place)
        assert self.answer(envelope) == self.model.recall(envelope, place)

    def write_to_somebody(self, sender: int, shift: int) -> ErrorCode | None:
        """A user writes to another one. Returns the refusal."""
        return self._send(text_message(self.user(sender), self.user(sender + shift), next(self._texts)))

    def write_to_a_session(self, sender: int, which: int) -> None:
        """A user writes into a session."""
        self._send(group_message(self.user(sender), self.session(which), MsgType.TEXT, {"text": next(self._texts)}))

    def make_session(self, creator: str, others: Sequence[str]) -> None:
        """A user makes a session with others."""
        made = self.change(partial(self.http[creator].add_session, others))
        self.model.make_session(made["session_id"], creator, others)

    def send_again(self, envelope: Envelope) -> None:
        """Send a message with a stored msg_id again: it is confirmed as before, or refused."""
        before = self._stored[envelope.msg_id]
        assert self.answer(envelope) == self.model.write_again(envelope)
        assert self._stored[envelope.msg_id] == before

    def _send(self, envelope: Envelope) -> ErrorCode | None:
        refusal = self.answer(envelope)
        assert refusal == self.model.write(envelope)
        return refusal

    def answer(self, envelope: Envelope) -> ErrorCode | None:
        """Send an envelope with the newest device of its sender. Returns the refusal."""
        try:
            stored = self.run(self._device(envelope.msg_from).send_until_stored(envelope))
        except RefusedError as refusal:
            return refusal.code
        self._stored[envelope.msg_id] = stored
        return None

    def edit(self, request: Callable[[], Awaitable[Json]]) -> ErrorCode | None:
        """Change something over HTTP. Returns the refusal."""
        try:
            self.change(request)
        except RefusedError as refusal:
            return refusal.code
        return None

    def change(self, request: Callable[[], Awaitable[Json]]) -> Json:
        """Change something over HTTP. Raises RefusedError."""
        return self.run(patiently(request))

    def eventually(self, check: Callable[[], Awaitable[None]]) -> None:
        """Wait until a check does not fail any more."""
        self.run(patiently(check, retry_if_exception_type((AssertionError, RefusedError))))

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Return what a coroutine returns."""
        return self._runner.run(work)

    # --- what is compared --------------------------------------------------------------------------------------------

    async def check_everything(self) -> None:
        """Assert that each user has got, and reads, what the model says."""
        for user in self.model.users:
            self._check_deliveries(user)
        await asyncio.gather(*(self._check_reader(user) for user in self.model.users))

    async def _check_reader(self, user: str) -> None:
        client, known = self.http[user], self.model.conversations(user)
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
        client, mine = self.http[user], self.model.open_sessions(user)
        assert [one["session_id"] for one in await client.sessions()] == mine
        for session_id, session in self.model.sessions.items():
            if session_id in mine:
                read = await client.session(session_id)
                assert (read["session_name"], read["subscribers"]) == (session.name, session.members)
            else:
                with pytest.raises(RefusedError) as refusal:
                    await client.session(session_id)
                assert refusal.value.code is ErrorCode.SESSION_UNKNOWN

    async def check_ledger(self, place: int) -> None:
        """Assert that the sender of a message sees its receivers' receipts."""
        entry = self.model.log[place]
        assert entry.envelope is not None
        told = await self.http[entry.sender].message(entry.envelope.msg_id)
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
        here, devices = self.devices[user], [*self._gone[user], *self.devices[user]]
        came = {msg_id for device in devices for msg_id in device.came}
        assert came <= meant.keys()
        assert not any(user in meant[msg_id].withheld_from for msg_id in came)
        assert {msg_id for device in devices for msg_id in device.copied} <= mine.keys()
        for got, due in (
            *((device.came, self.model.sent_to(user, device.since)) for device in here),
            *((device.copied, self.model.sent_by(user, here[-1].since)) for device in here[:-1]),
            *([] if user in self.model.away else [(came, meant)]),
        ):
            assert all(msg_id in got or entry.recalled or user in entry.missed_by for msg_id, entry in due.items())
        for device in devices:
            for conversation in {entry.conversation for entry in self.model.log}:
                told = self.model.order(conversation)
                heard = [msg_id for msg_id, _ in device.heard if msg_id in told]
                assert heard == sorted(heard, key=told.index)
