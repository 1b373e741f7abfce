"""Passwords: what ejabberd 24 was seen to refuse is refused here, before it is asked."""

import pytest
from session_api.passwords import MAX_PASSWORD, is_password


@pytest.mark.parametrize(
    "raw", ["ok", "two words", "pässwörd", "密码密码", "שלום", "\u0627\u0628", "a\u200bb", "x" * MAX_PASSWORD]
)
def test_a_password_of_ordinary_letters_is_taken(raw: str) -> None:
    assert is_password(raw)


@pytest.mark.parametrize(
    "raw",
    [
        "",
        "e😀",
        "\u1e9e\u00df",
        "\u20bd",
        "שלום1",
        "x\ue000",
        "\u0627\u0660",
        "bell\x07",
        "\u00ad",
        "x" * (MAX_PASSWORD + 1),
    ],
)
def test_a_password_that_the_server_refuses_or_takes_for_an_empty_one_is_refused(raw: str) -> None:
    assert not is_password(raw)
