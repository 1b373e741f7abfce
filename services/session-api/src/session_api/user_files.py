"""Reading files of users to import, CSV and JSON: from bytes to rows. Pure; it does not check the values in a row."""

import csv
import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from tlim_protocol.errors import ErrorCode, TlimError
from tlim_runtime.errors import PayloadTooLarge

MAX_ROWS = 50_000
"""Enough for a company. So many are read, checked and written in a few seconds, in less than 100 MB. More users need
several files."""

MAX_UNKNOWN, MAX_COLUMN = 100, 64
"""The most unknown columns that the answer lists, and characters of each: a JSON file may have thousands of keys."""

COLUMNS = ("user_id", "name", "password")


@dataclass(frozen=True, slots=True)
class Row:
    """One user of a file, unchecked; `number` counts from 1."""

    number: int
    values: dict[str, object] = field(repr=False)  # a password among them

    def text(self, column: str) -> str | None:
        """Return the text of a column, None when it is empty; raises FIELD_INVALID when it is not a string."""
        value = self.values.get(column)
        if value is None or isinstance(value, str):
            return value or None
        raise TlimError(ErrorCode.FIELD_INVALID, f"{column} is not a string", field=column)


@dataclass(frozen=True, slots=True)
class UserFile:
    """The rows of a file, the elements that are no rows (`refused`), and its unknown columns (`ignored`)."""

    rows: Sequence[Row]
    refused: Sequence[tuple[int, TlimError]] = ()
    ignored: Sequence[str] = ()

    @property
    def has_passwords(self) -> bool:
        """Whether any row has a password."""
        return any(row.values.get("password") for row in self.rows)


def read_csv(data: bytes) -> UserFile:
    """Read UTF-8 CSV (RFC 4180, with or without byte order mark) whose first line names the columns.

    Raises FIELD_INVALID for any other file, PayloadTooLarge for more than MAX_ROWS rows.
    """
    try:
        lines = csv.reader(io.StringIO(_decoded(data), newline=""), strict=True)
        header = [name.strip().lower() for name in next(lines, [])]
        if "user_id" not in header or len(set(header)) < len(header):
            raise _no_file("the first line of the file does not name its columns, each once, with user_id among them")
        rows: list[Row] = []
        refused: list[tuple[int, TlimError]] = []
        for number, cells in _numbered(lines):
            if len(cells) == len(header):
                rows.append(Row(number, {name: _cell(name, cell) for name, cell in zip(header, cells, strict=True)}))
            else:
                detail = f"the row has {len(cells)} values, the first line names {len(header)} columns"
                refused.append((number, TlimError(ErrorCode.FIELD_INVALID, detail)))
    except csv.Error as error:
        raise _no_file(f"the file is not CSV: {error}") from error
    return UserFile(rows, refused, _unknown(header))


def read_json(data: bytes) -> UserFile:
    """Read a JSON array of objects with the columns as keys.

    Raises JSON_INVALID, NOT_AN_ARRAY, PayloadTooLarge for more than MAX_ROWS elements.
    """
    try:
        elements: Any = json.loads(_decoded(data))
    except (ValueError, RecursionError) as error:
        raise TlimError(ErrorCode.JSON_INVALID, "the file is not JSON") from error
    if not isinstance(elements, list):
        raise TlimError(ErrorCode.NOT_AN_ARRAY, "the file is not a JSON array of users")
    if len(elements) > MAX_ROWS:
        raise _too_long()
    rows: list[Row] = []
    refused: list[tuple[int, TlimError]] = []
    for number, element in enumerate(elements, start=1):
        if isinstance(element, dict):
            rows.append(Row(number, element))
        else:
            refused.append((number, TlimError(ErrorCode.FIELD_INVALID, "this is not a JSON object")))
    return UserFile(rows, refused, _unknown(dict.fromkeys(key for row in rows for key in row.values)))


def _numbered(lines: Iterator[list[str]]) -> Iterator[tuple[int, list[str]]]:
    """Yield the rows with their numbers, from 1; empty lines are skipped."""
    number = 0
    for cells in lines:
        if cells:
            number += 1
            if number > MAX_ROWS:
                raise _too_long()
            yield number, cells


def _cell(column: str, cell: str) -> str:
    return cell if column == "password" else cell.strip()


def _unknown(columns: Sequence[str] | dict[str, None]) -> list[str]:
    unknown = (one for one in columns if one not in COLUMNS)
    # JSON can hold half a surrogate pair, but an answer in UTF-8 cannot
    return [one[:MAX_COLUMN].encode(errors="replace").decode() for one in islice(unknown, MAX_UNKNOWN)]


def _decoded(data: bytes) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise _no_file("the file is not UTF-8; Excel writes that as 'CSV UTF-8'") from error


def _no_file(detail: str) -> TlimError:
    return TlimError(ErrorCode.FIELD_INVALID, detail, field="file")


def _too_long() -> TlimError:
    return PayloadTooLarge(f"a file holds at most {MAX_ROWS} users", field="file")
