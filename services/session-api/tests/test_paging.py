"""Cursors: what was written is read, everything else is refused."""

import base64

import pytest
from session_api.paging import read_cursor, write_cursor
from tlim_protocol.errors import ErrorCode, TlimError


@pytest.mark.parametrize("place", ["alice", "1599218283837:s-1", "李雷", ""])
def test_a_cursor_leads_back_to_its_place(place: str) -> None:
    assert read_cursor(write_cursor(place)) == place


@pytest.mark.parametrize("nonsense", ["é", "a", base64.urlsafe_b64encode(b"\xff").decode(), write_cursor("a\x00")])
def test_what_was_never_a_cursor_is_refused(nonsense: str) -> None:
    with pytest.raises(TlimError) as refused:
        read_cursor(nonsense)
    assert (refused.value.code, refused.value.field) == (ErrorCode.FIELD_INVALID, "cursor")
