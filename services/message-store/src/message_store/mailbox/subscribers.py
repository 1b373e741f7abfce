"""The NATS door of mailboxes: notes of the bridge, who is present, and what a person has missed."""

import time
from collections.abc import Callable
from typing import TypeVar

from tlim_protocol.mailboxes import LiveAnswer, LiveQuestion, MailboxNotes, MissedAnswer, MissedQuestion
from tlim_runtime.broker import Broker, Responder
from tlim_runtime.database import Database

from message_store.mailbox.missed_repository import MissedTables
from message_store.mailbox.repository import Mailboxes
from message_store.mailbox.service import (
    half_of_events,
    half_of_people,
    list_live,
    read_missed,
    take_notes,
)
from message_store.patience import PatientTurns
from message_store.pieces import HEADERS

A = TypeVar("A", LiveAnswer, MissedAnswer)

MISSED_AT_ONCE = 3
"""Questions for what was missed that are answered at a time. After a restart of an XMPP server everybody asks at once,
and other questions must not wait for that."""

ASKER_WAITS_S = 10.0
"""The bridge waits so long for an answer at most (xmpp_bridge.mailbox.MISSED_WITHIN_S)."""


def note_responder(database: Database) -> Responder:
    """Return the responder of `tlim.rpc.mailbox.note`, which keeps what the bridge knows of people's sessions."""

    async def answer(data: bytes) -> bytes:
        request = MailboxNotes.from_bytes(data)
        async with database.hot_transaction() as connection:
            answer = await take_notes(Mailboxes(connection), request, time.time_ns() // 1_000_000)
        return answer.to_bytes()

    return answer


def live_responder(database: Database, broker: Broker) -> Responder:
    """Return the responder of `tlim.rpc.mailbox.live`, which tells who was present at the last note."""

    async def answer(data: bytes) -> bytes:
        question = LiveQuestion.from_bytes(data)
        async with database.hot_transaction() as connection:
            found = await list_live(Mailboxes(connection), question)
        return _fitting(found, half_of_people, broker.max_payload)

    return answer


def missed_responder(database: Database, broker: Broker) -> Responder:
    """Return the responder of `tlim.rpc.mailbox.missed`, which tells what a person has missed, page by page."""
    turns = PatientTurns(MISSED_AT_ONCE, ASKER_WAITS_S)

    async def answer(data: bytes) -> bytes:
        question = MissedQuestion.from_bytes(data)
        async with turns.one(), database.snapshot() as connection:
            found = await read_missed(MissedTables(connection), question)
        return _fitting(found, half_of_events, broker.max_payload)

    return answer


def _fitting(answer: A, half_of: Callable[[A], A | None], max_payload: int) -> bytes:
    """Return the answer as bytes, halved as often as NATS needs it."""
    payload = answer.to_bytes()
    while len(payload) > max_payload - HEADERS and (half := half_of(answer)) is not None:
        answer = half
        payload = answer.to_bytes()
    return payload
