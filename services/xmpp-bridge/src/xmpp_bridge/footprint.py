"""How much memory a message takes in this process. Its bytes tell little: read, it can take twenty times as much."""

VALUE_BYTES = 64
"""What a value of a JSON text takes beside its characters: a short text, an empty array, a place in an object. A number
with a fraction takes the most, 109 bytes."""

_FOUR_BYTES = (b"\xf0", b"\xf1", b"\xf2", b"\xf3", b"\xf4")
"""How the UTF-8 of emoji begins, and of all that is beyond U+FFFF."""

_ESCAPED = (b"&", b"<", b">")
_ESCAPE_BYTES = 4
"""`&amp;` has four characters more than `&`."""


def values_in(data: bytes) -> int:
    """Return how many values a JSON text has, or a few more: each but the first follows one of these."""
    return data.count(b",") + data.count(b"[") + data.count(b"{")


def priced(size: int, data: bytes) -> int:
    """Return as how many bytes a message of `size` bytes counts that travels as `data`: each value has its price."""
    return size + VALUE_BYTES * values_in(data)


def footprint(data: bytes) -> int:
    """Return about how many bytes a JSON text takes: as it came, as it is read, and as it is written into stanzas.

    One emoji makes every character of its text four bytes when it is read. What is written is kept as UTF-8.
    """
    width = 1 if data.isascii() else 4 if any(first in data for first in _FOUR_BYTES) else 2
    written = len(data) + _ESCAPE_BYTES * sum(map(data.count, _ESCAPED))
    return len(data) * (1 + width) + VALUE_BYTES * values_in(data) + written
