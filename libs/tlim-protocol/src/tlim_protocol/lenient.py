"""Reads JSON as clients really send it: as strict JSON, and if that fails, as JSON5. Writes strict JSON only."""

import json
import math
import re
from collections.abc import Iterable
from decimal import Decimal, InvalidOperation
from functools import lru_cache
from typing import Self

import msgspec
import pyjson5

from tlim_protocol.errors import ErrorCode, TlimError

MAX_DEPTH = 100
"""The deepest nesting. No message needs more, and with deeper nesting parsers and databases behave differently."""

MAX_VALUES = 10_000
"""The most values in a text; a text with more is refused before it is parsed. Every value is an object in the memory of
every service on the way, and a kilobyte of zlib can hold 480,000 values. A body of 1,000 elements may have ten fields
in each of them."""

MAX_BITS = 1024
"""The largest integer, in bits. Most readers take a larger one for infinity, so it is refused like infinity. The limit
also bounds our work: a hexadecimal integer of JSON5 may have any length, and the time to write it in decimal digits
grows with the square of the length."""

_STRINGS_AND_COMMENTS = rb"""
    "[^"\\]*+(?:\\.?[^"\\]*+)*+"?
    | '[^'\\]*+(?:\\.?[^'\\]*+)*+'?
    | //(?:[^\n\r\xe2]|\xe2(?!\x80[\xa8\xa9]))*+  # JSON5 also ends a line at U+2028 and U+2029
    | /\*(?:[^*]|\*(?!/))*+(?:\*/)?
    | /"""


class Number(float):
    """A number with a fraction or an exponent. It is written as it was read: `100.10` does not become `100.1`."""

    __slots__ = ("text",)

    text: str

    def __new__(cls, text: str) -> Self:
        """Keep the text of a JSON number."""
        number = super().__new__(cls, text)
        number.text = text
        return number


_STRICT = msgspec.json.Decoder(float_hook=Number)


def read_strict(text: str | bytes) -> object:
    """Return the value of strict JSON, with numbers as int or `Number`; raises ValueError for any other text."""
    try:
        return _STRICT.decode(text)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def read_json(text: str | bytes, max_values: int = MAX_VALUES) -> object:
    """Return the value of strict JSON or, failing that, of JSON5 (unquoted keys, single quotes, trailing commas).

    The specification's own examples are JSON5. There, a number with a fraction is a plain float. If a key is repeated,
    the last one wins. Raises TlimError FIELD_INVALID for more than `max_values` values, before anything is parsed.
    Raises JSON_INVALID for a text that is neither, for numbers that are too large, and for nesting deeper than
    MAX_DEPTH.
    """
    check_values(text, max_values)
    try:
        value = read_strict(text)
    except ValueError:
        value = _read_json5(text)
    if not _is_sound(value, MAX_DEPTH):
        raise TlimError(ErrorCode.JSON_INVALID, "the JSON holds a number that is too large, or is nested too deeply")
    return value


def check_values(text: str | bytes, max_values: int) -> None:
    """Raise TlimError FIELD_INVALID for JSON or JSON5 with more than `max_values` values, without parsing it.

    It counts commas and opening brackets: each value but the outermost follows one of them. So an empty array or object
    counts twice.
    """
    data = text if isinstance(text, bytes) else text.encode(errors="surrogatepass")
    if data.count(b",") + data.count(b"[") + data.count(b"{") < max_values:
        return  # some of these may be inside strings, so there are even fewer values
    if _more_values_than(max_values).match(data) is not None:
        raise TlimError(ErrorCode.FIELD_INVALID, f"the JSON holds more than {max_values} values", field="body")


def write_json(value: object) -> str:
    """Return `value` as compact strict JSON whose characters may all stand in XML 1.0 text.

    JSON itself escapes the control characters. XML also forbids U+FFFE and U+FFFF. They occur only inside strings, so
    replacing them by their escapes does not change the value.
    """
    text = msgspec.json.encode(value, enc_hook=_as_it_came).decode()
    return text.replace("\ufffe", "\\ufffe").replace("\uffff", "\\uffff")


def as_it_is(text: str) -> object:
    """Return a value that `write_json` writes as this text, which must be strict JSON."""
    return msgspec.Raw(text.encode())


def same_json(one: str, other: str) -> bool:
    """Tell whether two strict JSON texts have the same value. Neither the order of keys nor a number's form counts."""
    return bool(_comparable(one) == _comparable(other))


def _comparable(text: str) -> object:
    # Python says that 1 equals True. A number inside a tuple equals only another number.
    return json.loads(text, parse_int=_number, parse_float=_number)


def _number(digits: str) -> tuple[Decimal | str]:
    try:
        return (Decimal(digits),)
    except InvalidOperation:  # an exponent of 19 digits and more: such a number equals its own text only
        return (digits,)


def _as_it_came(value: object) -> msgspec.Raw:
    if isinstance(value, Number):
        return msgspec.Raw(value.text.encode())
    raise TypeError(f"{type(value).__name__} is nothing that JSON can hold")


@lru_cache
def _more_values_than(count: int) -> re.Pattern[bytes]:
    """Return a pattern that matches a text with more than `count` values.

    Such a text has `count` commas or opening brackets outside of strings. Every repetition is possessive, so no byte is
    looked at twice. One match of the whole text is ten times as fast as a loop over the values.
    """
    skipped = rb"""(?:[^,\[{"'/]++ | """ + _STRINGS_AND_COMMENTS + rb""")*+"""
    return re.compile(rb"(?:" + skipped + rb"[,\[{]){%d}+" % count, re.VERBOSE | re.DOTALL)


def _read_json5(text: str | bytes) -> object:
    try:
        return pyjson5.decode(text if isinstance(text, str) else text.decode(), maxdepth=MAX_DEPTH)
    except (pyjson5.Json5Exception, ValueError) as error:
        raise TlimError(ErrorCode.JSON_INVALID, "the text is neither JSON nor JSON5") from error


def _is_sound(value: object, depth: int) -> bool:
    if isinstance(value, dict):
        return depth > 0 and _are_sound(value.values(), depth - 1)
    if isinstance(value, list):
        return depth > 0 and _are_sound(value, depth - 1)
    if isinstance(value, float):
        return math.isfinite(value)
    return not isinstance(value, int) or value.bit_length() <= MAX_BITS


def _are_sound(values: Iterable[object], depth: int) -> bool:
    return all(isinstance(value, str) or _is_sound(value, depth) for value in values)  # most values are text
