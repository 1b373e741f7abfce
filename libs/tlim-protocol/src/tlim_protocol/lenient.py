"""Reading JSON as clients really send it: strict JSON first, JSON5 where that fails; writing is always strict."""

import json
import math
import re
from decimal import Decimal
from functools import lru_cache
from typing import Self

import msgspec
import pyjson5

from tlim_protocol.errors import ErrorCode, TlimError

MAX_DEPTH = 100
"""Deeper nesting is refused: nobody's message needs it, and parsers and databases differ beyond it."""

MAX_VALUES = 10_000
"""Texts with more values are refused unread: a kilobyte of zlib can hold 480,000 of them, and each is an object in
memory that every service on the way looks at. A body of 1,000 elements with ten fields each is still read."""

MAX_BITS = 1024
"""Larger integers are refused, as numbers that are not finite are: to most readers they are just that. And writing one
as decimal digits takes time with the square of its length, where JSON5's hexadecimal ones may have any."""

_STRINGS_AND_COMMENTS = rb"""
    "[^"\\]*+(?:\\.?[^"\\]*+)*+"?
    | '[^'\\]*+(?:\\.?[^'\\]*+)*+'?
    | //(?:[^\n\r\xe2]|\xe2(?!\x80[\xa8\xa9]))*+  # JSON5 also ends a line at U+2028 and U+2029
    | /\*(?:[^*]|\*(?!/))*+(?:\*/)?
    | /"""


class Number(float):
    """A number with a fraction or an exponent, which is written as it was read: `100.10` does not become `100.1`."""

    __slots__ = ("text",)

    text: str

    def __new__(cls, text: str) -> Self:
        """Keep the text of a JSON number."""
        number = super().__new__(cls, text)
        number.text = text
        return number


_STRICT = msgspec.json.Decoder(float_hook=Number)


def read_strict(text: str | bytes) -> object:
    """Return the value of strict JSON, its numbers as integers or as `Number`; raises ValueError for all else."""
    try:
        return _STRICT.decode(text)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def read_json(text: str | bytes, max_values: int = MAX_VALUES) -> object:
    """Return the value of strict JSON or, failing that, of JSON5 (unquoted keys, single quotes, trailing commas).

    The specification's own examples need the second reading, which knows numbers only as floats. Of repeated keys the
    last wins. Raises TlimError
    FIELD_INVALID, before anything is read, for more than `max_values` values. Raises JSON_INVALID for everything
    else, for numbers beyond what a float can tell and for nesting deeper than MAX_DEPTH.
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
    """Raise TlimError FIELD_INVALID for a text of JSON or JSON5 with more than `max_values` values, without reading it.

    Each value but the outermost stands behind a comma or an opening bracket; an empty array or object counts twice.
    """
    data = text if isinstance(text, bytes) else text.encode(errors="surrogatepass")
    if data.count(b",") + data.count(b"[") + data.count(b"{") < max_values:
        return  # however many of these stand in strings
    if _more_values_than(max_values).match(data) is not None:
        raise TlimError(ErrorCode.FIELD_INVALID, f"the JSON holds more than {max_values} values", field="body")


def write_json(value: object) -> str:
    """Return `value` as compact strict JSON whose characters may all stand in XML 1.0 text.

    JSON escapes the control characters itself; U+FFFE and U+FFFF, which XML forbids too, can only occur inside
    strings, so that replacing them by their escapes keeps the value.
    """
    text = msgspec.json.encode(value, enc_hook=_as_it_came).decode()
    return text.replace("\ufffe", "\\ufffe").replace("\uffff", "\\uffff")


def same_json(one: str, other: str) -> bool:
    """Tell whether two strict JSON texts say the same: the order of keys and how a number is written do not count."""
    return bool(_comparable(one) == _comparable(other))


def _comparable(text: str) -> object:
    # Python takes 1 for true; a number in a tuple is equal to numbers only
    return json.loads(text, parse_int=_number, parse_float=_number)


def _number(digits: str) -> tuple[Decimal]:
    return (Decimal(digits),)


def _as_it_came(value: object) -> msgspec.Raw:
    if isinstance(value, Number):
        return msgspec.Raw(value.text.encode())
    raise TypeError(f"{type(value).__name__} is nothing that JSON can hold")


@lru_cache
def _more_values_than(count: int) -> re.Pattern[bytes]:
    """Return what matches a text with `count` commas or opening brackets outside of strings: more than `count` values.

    Every repetition is possessive, so no byte is looked at twice. One match of the whole is ten times as fast as a
    loop over the values.
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
        return depth > 0 and all(_is_sound(item, depth - 1) for item in value.values())
    if isinstance(value, list):
        return depth > 0 and all(_is_sound(item, depth - 1) for item in value)
    if isinstance(value, float):
        return math.isfinite(value)
    return not isinstance(value, int) or value.bit_length() <= MAX_BITS
