"""Ranges and conditional requests."""

from datetime import UTC, datetime

import pytest
from file_api.download.ranges import (
    ByteRange,
    UnsatisfiableRangeError,
    Validators,
    allows_range,
    is_not_modified,
    is_other_version,
    parse_range,
)
from hypothesis import given
from hypothesis import strategies as st

CURRENT = Validators('"abc"', datetime(2026, 11, 23, 12, 0, 0, 500_000, tzinfo=UTC))


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("bytes=0-0", ByteRange(0, 0)),
        ("bytes=0-", ByteRange(0, 99)),
        ("bytes=90-1000", ByteRange(90, 99)),
        ("bytes=-1", ByteRange(99, 99)),
        ("bytes=-1000", ByteRange(0, 99)),
        ("bytes=0-" + 5_000 * "9", ByteRange(0, 99)),
        ("bytes=-" + 5_000 * "9", ByteRange(0, 99)),
        ("bytes=" + 5_000 * "0" + "5-" + 5_000 * "0" + "6", ByteRange(5, 6)),
        ("Bytes = 5-6", ByteRange(5, 6)),
        (None, None),
        ("", None),
        ("lines=1-2", None),
        ("bytes=0-1,5-6", None),
        ("nonsense", None),
    ],
)
def test_a_range_header_selects(header: str | None, expected: ByteRange | None) -> None:
    assert parse_range(header, 100) == expected


@pytest.mark.parametrize(
    "header",
    [
        "bytes=",
        "bytes=-",
        "bytes=a-b",
        "bytes=100-",
        "bytes=5-4",
        "bytes=-0",
        "bytes=--1",
        "bytes=" + 5_000 * "9" + "-",
        "bytes=٣-٤",
    ],
)
def test_a_range_that_selects_nothing_cannot_be_satisfied(header: str) -> None:
    with pytest.raises(UnsatisfiableRangeError):
        parse_range(header, 100)


@given(spec=st.text(alphabet="0123456789-, ", max_size=12), size=st.integers(1, 1000))
def test_whatever_is_selected_lies_within_the_file(spec: str, size: int) -> None:
    try:
        selected = parse_range(f"bytes={spec}", size)
    except UnsatisfiableRangeError:
        return
    if selected is not None:
        assert 0 <= selected.start <= selected.end < size


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, False),
        ({"if-none-match": '"abc"'}, True),
        ({"if-none-match": 'W/"abc"'}, True),
        ({"if-none-match": '"x", "abc"'}, True),
        ({"if-none-match": "*"}, True),
        ({"if-none-match": '"x"'}, False),
        ({"if-none-match": '"x"', "if-modified-since": "Mon, 23 Nov 2026 12:00:00 GMT"}, False),
        ({"if-modified-since": "Mon, 23 Nov 2026 12:00:00 GMT"}, True),
        ({"if-modified-since": "Mon, 23 Nov 2026 11:59:59 GMT"}, False),
        ({"if-modified-since": "yesterday"}, False),
        ({"if-modified-since": "Mon, 01 Jan 99999999999 00:00:00 GMT"}, False),
        ({"if-modified-since": "Mon, 23 Nov 2026 12:00:00 -99999999999999"}, False),
        ({"if-modified-since": "Mon, 23 Nov " + 5_000 * "9" + " 12:00:00 GMT"}, False),
    ],
)
def test_not_modified(headers: dict[str, str], expected: bool) -> None:
    assert is_not_modified(headers, CURRENT) is expected


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, False),
        ({"if-match": '"abc"'}, False),
        ({"if-match": '"x", "abc"'}, False),
        ({"if-match": "*"}, False),
        ({"if-match": 'W/"abc"'}, True),
        ({"if-match": '"x"'}, True),
        ({"if-match": '"abc"', "if-unmodified-since": "Mon, 23 Nov 2026 11:00:00 GMT"}, False),
        ({"if-unmodified-since": "Mon, 23 Nov 2026 12:00:00 GMT"}, False),
        ({"if-unmodified-since": "Mon, 23 Nov 2026 11:59:59 GMT"}, True),
        ({"if-unmodified-since": "yesterday"}, False),
    ],
)
def test_another_version(headers: dict[str, str], expected: bool) -> None:
    assert is_other_version(headers, CURRENT) is expected


@pytest.mark.parametrize(
    ("if_range", "expected"),
    [(None, True), ('"abc"', True), ("Mon, 23 Nov 2026 12:00:00 GMT", True), ('"x"', False), ('W/"abc"', False)],
)
def test_a_range_counts_only_for_the_same_version(if_range: str | None, expected: bool) -> None:
    assert allows_range(if_range, CURRENT) is expected
