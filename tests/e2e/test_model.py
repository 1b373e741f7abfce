"""Random actions of people in random order: after each step, all people see what a model in memory predicts."""

import os
from functools import partial

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
from tlim_client.compose import text_message
from tlim_devstack.stack import Stack
from tlim_protocol.errors import ErrorCode
from tlim_protocol.registry import MsgType

from tests.e2e.conftest import not_on_openfire
from tests.e2e.world import PEOPLE, World

EXAMPLES = int(os.environ.get("TLIM_E2E_EXAMPLES", "0"))
"""How many histories to live through; 0: a few, always the same ones."""
FEW, STEPS = 5, 50
HISTORY_S = 180
"""How long a history may take: usually 20 s, on a busy machine over a minute."""
SESSIONS, DEVICES = 3, 2

somebody = st.integers(0, PEOPLE - 1)
anything = st.one_of(st.integers(0, 3), st.integers(0, 1_000))
"""Counts messages from the newest one: most of what happens is about the last ones, as in life."""


class Machine(RuleBasedStateMachine):
    """People who log in and out with up to two devices each; every action is also applied to the model."""

    def __init__(self, stack: Stack) -> None:
        super().__init__()
        self.world = World(stack)
        self.model = self.world.model

    # --- what people do --------------------------------------------------------------------------------------------

    @initialize()
    def begin(self) -> None:
        """Begin with a session and messages: Hypothesis picks few rules in a history, and each needs some to act on."""
        first = self.model.users[0]
        self.world.make_session(first, self.model.users[1:])
        # The answer waits 2 s for the broker to take the notice. If that takes longer, the first messages overtake it.
        self.everybody_sees_what_the_model_says()
        for sender in range(PEOPLE):
            self.world.write_to_somebody(sender, 1)
            self.world.write_to_a_session(sender, 0)

    @rule(sender=somebody, shift=st.integers(1, PEOPLE - 1), count=st.integers(1, 3))
    def write_to_somebody(self, sender: int, shift: int, count: int) -> None:
        for _ in range(count):
            self.world.write_to_somebody(sender, shift)

    @precondition(lambda self: len(self.model.sessions) < SESSIONS)
    @rule(creator=somebody, alone_with=st.one_of(st.none(), st.integers(1, PEOPLE - 1)))
    def make_a_session(self, creator: int, alone_with: int | None) -> None:
        me = self.world.user(creator)
        others = [user for user in self.model.users if user != me]
        if alone_with is not None:
            others = [self.world.user(creator + alone_with)]
        self.world.make_session(me, others)

    @precondition(lambda self: self.model.sessions)
    @rule(sender=somebody, which=anything, count=st.integers(1, 3))
    def write_to_a_session(self, sender: int, which: int, count: int) -> None:
        for _ in range(count):
            self.world.write_to_a_session(sender, which)

    @precondition(lambda self: self.model.messages)
    @rule(which=anything)
    def send_again(self, which: int) -> None:
        envelope = self.model.log[self.world.message(which)].envelope
        assert envelope is not None
        self.world.send_again(envelope)

    @precondition(lambda self: self.model.messages)
    @rule(which=anything, to=somebody, how=st.sampled_from(["body", "conversation", "type"]))
    def use_a_msg_id_for_another_message(self, which: int, to: int, how: str) -> None:
        place = self.world.message(which)
        envelope = self.model.log[place].envelope
        assert envelope is not None
        sender = envelope.msg_from
        if how == "body":
            other = envelope.model_copy(update={"body": [{**envelope.body[0], "text": "another"}]})
        elif how == "conversation":
            other = text_message(sender, self.world.user(to), envelope.body[0]["text"])
        else:
            other = self.world.about(sender, MsgType.RECALL, place)
        self.world.send_again(other.model_copy(update={"msg_id": envelope.msg_id}))

    @precondition(lambda self: self.model.messages)
    @rule(
        reporter=somebody,
        which=anything,
        more=st.lists(anything, max_size=2),
        kind=st.sampled_from([MsgType.RECEIVED, MsgType.READ]),
    )
    def report(self, reporter: int, which: int, more: list[int], kind: MsgType) -> None:
        first = self.world.message(which)
        same = [
            place for place in self.model.messages if self.world.conversation(place) == self.world.conversation(first)
        ]
        places = [first, *(same[number % len(same)] for number in more)]
        envelope = self.world.about(self.world.user(reporter), kind, *places)
        assert self.world.answer(envelope) == self.model.report(envelope, places)
        for place in places:
            self.world.eventually(partial(self.world.check_ledger, place))

    @precondition(lambda self: self.model.messages)
    @rule(other=st.one_of(st.none(), somebody), which=anything)
    def recall(self, other: int | None, which: int) -> None:
        place = self.world.message(which)
        self.world.recall(self.model.log[place].sender if other is None else self.world.user(other), place)

    @precondition(lambda self: self.model.sessions)
    @rule(who=somebody, which=anything, whom=somebody, how=st.sampled_from(["rename", "add or remove", "delete"]))
    def edit_a_session(self, who: int, which: int, whom: int, how: str) -> None:
        me, session_id, other = self.world.user(who), self.world.session(which), self.world.user(whom)
        client, session = self.world.http[me], self.model.sessions[session_id]
        if how == "rename":
            refusal = self.world.edit(partial(client.change_session, session_id, session_name=f"名{whom}"))
            assert refusal == self.model.rename(session_id, me, f"名{whom}")
        elif how == "delete":
            if whom == who or me != self.model.leader(session_id):  # a deleted one is the end of much
                refusal = self.world.edit(partial(client.delete_session, session_id))
                assert refusal == self.model.delete(session_id, me)
        elif other not in session.members:
            refusal = self.world.edit(partial(client.change_session, session_id, add=[other]))
            assert refusal == self.model.add(session_id, me, other)
        elif len(session.members) > 1:
            refusal = self.world.edit(partial(client.change_session, session_id, remove=[other]))
            assert refusal == self.model.remove(session_id, me, other)

    @rule(whom=somebody, devices=st.integers(0, DEVICES))
    def come_or_leave(self, whom: int, devices: int) -> None:
        user = self.world.user(whom)
        while len(self.world.devices[user]) < devices:
            self.world.come(user)
        while len(self.world.devices[user]) > devices:
            self.world.leave(user)

    @rule(whom=somebody, shift=st.integers(1, PEOPLE - 1), is_taken_back=st.booleans())
    def leave_and_miss_a_message(self, whom: int, shift: int, is_taken_back: bool) -> None:
        self.come_or_leave(whom, 0)
        if self.world.write_to_somebody(whom + shift, PEOPLE - shift) is None and is_taken_back:
            self.world.recall(self.world.user(whom + shift), self.model.messages[-1])

    # --- what they see ---------------------------------------------------------------------------------------------

    @precondition(lambda self: self.model.messages)
    @rule(who=somebody, which=anything)
    def search(self, who: int, which: int) -> None:
        user, envelope = self.world.user(who), self.model.log[self.world.message(which)].envelope
        assert envelope is not None
        text = envelope.body[0]["text"]

        async def finds_what_it_should() -> None:
            found = await self.world.http[user].search(text)
            assert [one["msg_id"] for one in found] == self.model.search(user, text)

        self.world.eventually(finds_what_it_should)  # the index may be a moment behind

    @invariant()
    def everybody_sees_what_the_model_says(self) -> None:
        self.world.eventually(self.world.check_everything)

    def teardown(self) -> None:
        """Check that people who were away get everything, then log all people out."""
        try:
            for user in self.model.away.copy():
                self.world.come(user)
            self.world.eventually(self.world.check_everything)
        finally:
            self.world.close()


@pytest.mark.timeout((EXAMPLES or FEW) * HISTORY_S)
@pytest.mark.proves(
    "GET /v1/search",
    *(MsgType.TEXT, MsgType.GROUP_TEXT, MsgType.RECEIVED, MsgType.READ, MsgType.RECALL),
    *("GET /v1/sync", "GET /v1/conversations", "GET /v1/conversations/{conversation}/messages"),
    *("GET /v1/messages/{msg_id}", ErrorCode.NOT_ALLOWED, ErrorCode.SESSION_UNKNOWN, ErrorCode.MSG_ID_UNKNOWN),
)
def test_whatever_people_do_everybody_sees_what_the_model_says(stack: Stack) -> None:
    class Here(Machine):
        def __init__(self) -> None:
            super().__init__(stack)

    run_state_machine_as_test(
        Here,
        settings=settings(
            max_examples=EXAMPLES or FEW,
            derandomize=EXAMPLES == 0,
            stateful_step_count=STEPS,
            database=None,
            phases=[Phase.generate],  # a history is short enough to read, and shrinking takes minutes
            suppress_health_check=list(HealthCheck),
        ),
    )


@pytest.mark.proves(MsgType.READ)
@not_on_openfire("receipts do not wait for an author who is away")
def test_a_receipt_for_somebody_who_was_away_comes_with_the_rest(stack: Stack) -> None:
    world = World(stack)
    try:
        alice, bob = world.user(0), world.user(1)
        world.write_to_somebody(0, 1)
        world.leave(alice)
        receipt = world.about(bob, MsgType.READ, 0)
        assert world.answer(receipt) == world.model.report(receipt, [0])
        world.come(alice)

        async def it_came() -> None:
            assert receipt.msg_id in world.devices[alice][-1].came

        world.eventually(it_came)
        world.eventually(world.check_everything)
    finally:
        world.close()
