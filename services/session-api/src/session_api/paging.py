"""Cursors: opaque texts that name the place after which the next page starts."""

import base64
import binascii
from typing import Annotated

from fastapi import Query
from tlim_protocol.characters import is_plain_text
from tlim_protocol.errors import ErrorCode, TlimError

Cursor = Annotated[str | None, Query(description="`next_cursor` of the page before", max_length=512)]
PageSize = Annotated[int, Query(ge=1, le=200)]


def write_cursor(place: str) -> str:
    """Return a place as a cursor, encoded so that no client is tempted to build one."""
    return base64.urlsafe_b64encode(place.encode()).decode().rstrip("=")


def read_cursor(cursor: str) -> str:
    """Return the place that a cursor names; raises FIELD_INVALID when it is not a cursor."""
    try:
        place = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode()
    except (binascii.Error, ValueError) as error:
        raise bad_cursor() from error
    if not is_plain_text(place):
        raise bad_cursor()
    return place


def read_number(text: str, *, digits: int) -> int:
    """Return a number within a place; raises FIELD_INVALID when it is no number or has more digits than `digits`."""
    if not (text.isascii() and text.isdigit() and len(text) <= digits):
        raise bad_cursor()
    return int(text)


def bad_cursor() -> TlimError:
    """Return the refusal of a cursor that did not come from here."""
    return TlimError(ErrorCode.FIELD_INVALID, "this is not a cursor of this list", field="cursor")
