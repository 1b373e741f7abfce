"""HTTP answers that contain bodies of messages: a user's body is written as the log keeps it, without being read.

schemas.py has the shapes. No model is made here, because a page of 50 messages took a third of the request's time then.
"""

from typing import Any

from fastapi.responses import JSONResponse
from tlim_protocol.identity import is_direct
from tlim_protocol.lenient import as_it_is, write_json
from tlim_protocol.notices import form_for

from message_store.notices import SERVER, in_the_name_of, receiver_of
from message_store.reading.conversations_service import UNREAD_CAP, Overview, Overviews
from message_store.reading.history_service import Page
from message_store.reading.ledger_service import Ledger
from message_store.reading.sync_service import Changes, LogKind, conversation_name, kind_of
from message_store.values import ReadRow

Shape = dict[str, Any]
"""A value of schemas.py under its wire names, in the order of its fields."""


class PageAnswer(JSONResponse):
    """A page as JSON. FastAPI's own writing would read each number as a float."""

    def render(self, content: Shape) -> bytes:
        """Return the page as JSON text."""
        return write_json(content).encode()


def history_page(page: Page) -> Shape:
    """Return a HistoryPage."""
    return {"messages": [message_shape(row) for row in page.messages], "next": page.next, "more": page.more}


def sync_page(me: str, changes: Changes) -> Shape:
    """Return a SyncPage for a reader."""
    return {"items": [log_item(me, row) for row in changes.items], "next": changes.next, "more": changes.more}


def conversation_page(me: str, page: Overviews) -> Shape:
    """Return a ConversationPage for a reader."""
    return {
        "items": [_conversation_item(me, one) for one in page.overviews],
        "next_cursor": None if page.next is None else str(page.next),
        "sync_from": page.sync_from,
    }


def message_details(me: str, ledger: Ledger) -> Shape:
    """Return the MessageDetails of a message and its receivers for a reader."""
    receipts = [
        {"user_id": line.user_id, "delivered_at": _time(line.delivered_at), "read_at": _time(line.read_at)}
        for line in ledger.lines
    ]
    item = log_item(me, ledger.message)
    return {**item, **ledger.counts._asdict(), "receipts": receipts, "next_cursor": ledger.next}


def message_shape(row: ReadRow) -> Shape:
    """Return the HistoryMessage of a row."""
    return {
        "seq": row.seq,
        "stored_at": str(row.stored_at),
        "recalled": row.recalled_at is not None,
        "compress": "0",
        "encode": "1",
        "encrypt": "0",
        "version": row.version,
        "from": row.sender,
        "to": receiver_of(row),
        "msg_id": row.msg_id,
        "msg_type": row.msg_type,
        "msg_time": row.msg_time,
        "body": as_it_is(row.body),
    }


def log_item(me: str, row: ReadRow) -> Shape:
    """Return the LogItem of a row for a reader; a row of the server is from the user in whose name it is told."""
    kind = kind_of(row)
    shape = message_shape(row)
    if row.sender == SERVER or kind is LogKind.NOTICE:
        elements = row.elements
        if row.sender == SERVER and elements:
            shape["from"] = in_the_name_of(elements)
        if kind is LogKind.NOTICE:
            shape["body"] = [form_for(me, element) for element in elements]
    return {**shape, "kind": kind, **place_of(row.conversation_id, me)}


def place_of(conversation_id: str, me: str) -> Shape:
    """Return the conversation that a message belongs to, by the ids that `me` uses."""
    session_id = None if is_direct(conversation_id) else conversation_id
    return {"conversation": conversation_name(conversation_id, me), "session_id": session_id}


def _conversation_item(me: str, overview: Overview) -> Shape:
    return {
        **place_of(overview.conversation_id, me),
        "session_name": overview.name,
        "last": None if overview.last is None else message_shape(overview.last),
        "unread": min(overview.unread, UNREAD_CAP),
        "unread_capped": overview.unread > UNREAD_CAP,
        "read_seq": overview.read_seq,
        "left": overview.left,
        "deleted": overview.deleted,
    }


def _time(milliseconds: int | None) -> str | None:
    return None if milliseconds is None else str(milliseconds)
