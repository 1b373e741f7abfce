"""Names: what a reader must be able to see, and what may not rearrange the line around it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tlim_protocol.characters import DIRECTION_CHANGES, shows_something
from tlim_protocol.errors import ErrorCode, TlimError
from tlim_protocol.identity import normalize_user_id
from tlim_protocol.names import MAX_NAME, checked_name, joined_names

FAMILY = "\U0001f468\u200d\U0001f469\u200d\U0001f467"
ENGLAND = "\U0001f3f4\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f"
NEWER_THAN_OUR_TABLES = "\U0001fadc"
"""Root vegetable, Unicode 16."""


def refusal_of(name: str) -> ErrorCode:
    with pytest.raises(TlimError) as refused:
        checked_name(name, field="session_name", unseen=ErrorCode.SESSION_NAME_EMPTY)
    assert refused.value.field == "session_name"
    return refused.value.code


@pytest.mark.parametrize(
    "name",
    [
        "Bob",
        "会议",
        "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645",
        FAMILY,
        ENGLAND,
        "❤\ufe0f",
        NEWER_THAN_OUR_TABLES,
        "\u05d3\u05e0\u05d4\u200f (Dana)",
        "soft\u00adware",
        "?",
        "1",
        "\ue000",
    ],
)
def test_a_name_that_shows_something_is_taken_with_its_joiners_and_marks(name: str) -> None:
    assert checked_name(name, field="name") == name


@pytest.mark.parametrize(
    "name",
    [
        "",
        " ",
        "\u00a0",
        "\u3000",
        "\u00ad",
        "\u034f",
        "\u061c",
        "\u115f\u1160",
        "\u17b4",
        "\u180e",
        "\u200b",
        "\u200d",
        "\u200f",
        "\u2028",
        "\u2060",
        "\u2065",
        "\u2800",
        "\u3164",
        "\ufe0f",
        "\ufeff",
        "\uffa0",
        "\ufff0",
        "\U0001d159",
        "\U000e0001",
        "\U000e0100",
        "\U000e0fff",
        "\u0301",
        " \u2800 \u200b ",
    ],
)
def test_a_name_that_shows_nothing_is_refused(name: str) -> None:
    assert refusal_of(name) is ErrorCode.SESSION_NAME_EMPTY


@pytest.mark.parametrize("char", sorted(DIRECTION_CHANGES))
def test_a_name_that_changes_the_direction_of_text_is_refused(char: str) -> None:
    assert refusal_of(f"photo{char}gpj.exe") is ErrorCode.SESSION_NAME_EMPTY


@pytest.mark.parametrize("name", ["two\nlines", "two\u2028lines", "nul\x00", "a\ud800", "\ud800", "x" * (MAX_NAME + 1)])
def test_a_name_that_is_too_long_or_not_one_line_is_invalid(name: str) -> None:
    assert refusal_of(name) is ErrorCode.FIELD_INVALID


def test_a_name_has_at_most_128_characters() -> None:
    assert checked_name("名" * 128, field="name") == "名" * 128


def test_the_name_of_a_person_is_refused_as_a_field() -> None:
    with pytest.raises(TlimError) as refused:
        checked_name("\u2800", field="name")
    assert (refused.value.code, refused.value.field) == (ErrorCode.FIELD_INVALID, "name")


@given(st.lists(st.text(min_size=1, max_size=MAX_NAME).filter(shows_something), min_size=1, max_size=5))
def test_a_joined_name_is_short_and_changes_no_direction(names: list[str]) -> None:
    joined = joined_names(names)
    assert len(joined) <= MAX_NAME
    assert DIRECTION_CHANGES.isdisjoint(joined)


@pytest.mark.parametrize("raw", ["\u2800", "\u3164", "\uffa0", "\u0301"])
def test_an_id_that_shows_nothing_is_no_user_id(raw: str) -> None:
    with pytest.raises(TlimError) as refused:
        normalize_user_id(raw)
    assert refused.value.code is ErrorCode.FIELD_INVALID
