"""What a text is compared as, and that whatever contains a query has all of its numbers."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from message_store.search.grams import folded, grams_of_message, grams_of_query, grams_of_text, text_of
from tlim_protocol.registry import MsgType

TEXTS = st.text(st.sampled_from("ab 中文今天é\u0301ßİﬁ😀👍🏽%_\\\"'\n\x00"), max_size=30)


@pytest.mark.parametrize(
    ("written", "compared"),
    [
        ("Straße", "strasse"),
        ("ＡＢＣ１", "abc1"),
        ("e\u0301", "é"),
        ("  a\t\n b ", "a b"),
        ("\u3000", ""),
        ("今天 開會", "今天 開會"),
    ],
)
def test_case_width_and_composition_do_not_matter(written: str, compared: str) -> None:
    assert folded(written) == compared


@pytest.mark.parametrize("marks", ["\u0301\u0327", "\u0344\u0327", "\u0f73", "\uff9e\u0327"])
def test_of_very_many_marks_on_a_letter_only_the_first_count(marks: str) -> None:
    """To sort them takes a time that grows with their square."""
    assert folded("a" + marks * 1_000 + "b") == folded("a" + (marks * 30)[:30] + "b")


@given(TEXTS)
def test_folding_twice_changes_nothing(text: str) -> None:
    assert folded(folded(text)) == folded(text)


@given(TEXTS, st.data())
def test_a_text_has_the_numbers_of_every_part_of_it(text: str, data: st.DataObject) -> None:
    text = folded(text)
    start = data.draw(st.integers(0, len(text)))
    part = text[start : data.draw(st.integers(start, len(text)))]
    assert grams_of_query(part) <= grams_of_text(text)
    assert grams_of_query(part) <= grams_of_message(5, "g", "alice", None, text)


@given(TEXTS)
def test_numbers_fit_postgresqls_integer(text: str) -> None:
    assert all(-(2**31) <= gram < 2**31 for gram in grams_of_message(2**62, "u:a:b", "a", "b", text))


@pytest.mark.parametrize(
    ("msg_type", "body", "text"),
    [
        (MsgType.TEXT, [{"text": "Hello", "other": "no"}, {"text": " You"}], "hello\nyou"),
        (MsgType.GROUP_TEXT, [{"session_id": "s", "text": "Hi"}], "hi"),
        (
            MsgType.GROUP_TODO,
            [{"session_id": "s", "title": "Pay", "more": {"lines": ["Rent", 1, None]}}],
            "pay\nrent",
        ),
        (MsgType.FILE, [{"file_id": "f"}], ""),
        (MsgType.FILE, [{"file_id": "f", "name": "报告.PDF"}], "报告.pdf"),
        (MsgType.TEXT, [], ""),
        (MsgType.READ, [{"msg_id": "m", "text": "no"}], ""),
    ],
)
def test_what_is_searched_of_a_message(msg_type: MsgType, body: list[dict[str, object]], text: str) -> None:
    assert text_of(msg_type, body) == text
