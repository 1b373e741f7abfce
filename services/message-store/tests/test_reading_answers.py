"""What is written is what the OpenAPI document tells: its fields in their order, and each body as the log keeps it."""

import json

import pytest
from message_store.reading.answers import (
    PageAnswer,
    Shape,
    conversation_page,
    history_page,
    message_details,
    sync_page,
)
from message_store.reading.conversations_service import Overview, Overviews
from message_store.reading.history_service import Page
from message_store.reading.ledger_repository import Counts, LedgerLine
from message_store.reading.ledger_service import Ledger
from message_store.reading.schemas import ConversationPage, HistoryPage, MessageDetails, SyncPage
from message_store.reading.sync_service import Changes
from message_store.search.answers import search_page
from message_store.search.schemas import SearchPage
from message_store.search.service import Hits
from message_store.values import ReadRow
from pydantic import BaseModel
from tlim_protocol.lenient import write_json
from tlim_protocol.registry import REGISTRY, MsgType

GROUP = "6f1c5e0a-9d6b-4a53-8a3e-0d6c1b7f2a10"

# Numbers that a float cannot hold, an order of keys, escapes, and blanks that a release before may have kept.
BODY = '[ {"z":100.10,"a":12345678901234567890,"text":"\\u0000 \\ufffe \\" 你","exact":1e2, "a b": [null,true]} ]'

DIRECT = ReadRow(7, "u:alice:bob", "bob", "alice", "m7", MsgType.TEXT, "2.0.0", BODY, "1700000000000", 1700000000001)
IN_GROUP = DIRECT._replace(seq=8, conversation_id=GROUP, recipient="carol")
RECALLED = DIRECT._replace(seq=9, body="[]", recalled_at=1700000000002)
ROWS = [DIRECT, IN_GROUP, RECALLED]

NOTICE = IN_GROUP._replace(
    seq=10, sender="", recipient=None, msg_type=MsgType.SESSION_ADDED,
    body=write_json([dict(REGISTRY[MsgType.SESSION_ADDED].example)]),
)  # fmt: skip

OVERVIEWS = [
    Overview("u:alice:bob", None, DIRECT, 1001, 3, left=False, deleted=False),
    Overview(GROUP, "a group", None, 0, 0, left=True, deleted=True),
]
LEDGER = Ledger(DIRECT, Counts(2, 1, 1), [LedgerLine("alice", 1, 2), LedgerLine("carol", None, None)], "carol")

PAGES: dict[str, tuple[type[BaseModel], Shape]] = {
    "history": (HistoryPage, history_page(Page(ROWS, 9, more=True))),
    "an empty history": (HistoryPage, history_page(Page([], None, more=False))),
    "sync": (SyncPage, sync_page("alice", Changes([*ROWS, NOTICE], 10, more=False))),
    "conversations": (ConversationPage, conversation_page("alice", Overviews(OVERVIEWS, 5, 10))),
    "the last conversations": (ConversationPage, conversation_page("alice", Overviews([], None, 10))),
    "a message": (MessageDetails, message_details("alice", LEDGER)),
    "search": (SearchPage, search_page("alice", Hits(ROWS, 9))),
    "the end of search": (SearchPage, search_page("alice", Hits([], None))),
}


@pytest.mark.parametrize(("model", "page"), PAGES.values(), ids=PAGES)
def test_an_answer_is_what_its_documented_shape_would_be_written_as(model: type[BaseModel], page: Shape) -> None:
    text = bytes(PageAnswer(page).body).decode()
    documented = model.model_validate_json(text, strict=True).model_dump(mode="json", by_alias=True)
    assert json.dumps(json.loads(text)) == json.dumps(documented)


def test_a_body_is_answered_as_it_is_kept() -> None:
    text = bytes(PageAnswer(history_page(Page([DIRECT], 7, more=False))).body).decode()
    assert f'"body":{BODY}' in text
    (message,) = json.loads(text)["messages"]
    assert message["body"] == json.loads(BODY)


def test_a_notice_is_told_in_the_form_for_the_reader_and_in_the_name_of_who_made_the_change() -> None:
    added = [{"user_id": "carol"}]
    element = {"session_id": GROUP, "actor": "bob", "subscribers": [{"user_id": "alice"}, *added], "added": added}
    notice = NOTICE._replace(body=write_json([element]))
    told = {me: sync_page(me, Changes([notice], 10, more=False))["items"][0] for me in ("alice", "carol")}
    assert [told[me]["from"] for me in told] == ["bob", "bob"]
    assert ["subscribers" in told[me]["body"][0] for me in told] == [False, True]
