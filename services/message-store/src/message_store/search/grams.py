"""What a message can be found by: its folded text, and numbers ("grams") that an index can look up.

The index holds each pair of neighbouring characters of the text as a number of 32 bits. Pairs, because two characters
are a whole word in Chinese, and a longer text consists of its pairs. Two pairs may have the same number, and the same
pairs may stand in another order. So the index gives candidates only; comparing the text decides. A message also has one
number for each thing that a search can be narrowed by: conversation, person, sender, block of seqs.
"""

import re
import unicodedata
import zlib
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any

from tlim_protocol.registry import REGISTRY, MsgType

_PRIME = 4_294_967_291  # the largest below 2**32
_OFFSET = 2**31  # PostgreSQL's integer has a sign
_CODE_BITS = 21  # of a Unicode code point
_ALONE = ""  # stands before a single character
_AFTER_THE_LAST = 0x110000  # the code that stands for _ALONE: no character has it
_FIRST_IDEOGRAPHIC = "\u2e80"  # from here on one character can be a word: ideographs, and emoji too

BLOCK_BITS = (13, 16, 19)
"""Sizes of the blocks of seqs, as powers of two. A search goes back through these blocks before it takes the rest of
the log: first 8,192 rows, then eight times as many with each step. Measured: larger blocks cost more than they save."""

_MAX_MARKS = 30  # on one letter: more than any language uses, and the limit of the Stream-Safe format (UAX #15, 13)
_MARKS = "".join(
    char
    for char in map(chr, range(0x300, 0x20000))
    if all(map(unicodedata.combining, unicodedata.normalize("NFKD", char)))
)
_TOO_MANY_MARKS = re.compile(f"([{_MARKS}]{{{_MAX_MARKS}}})[{_MARKS}]+")

_NAME_KEYS = ("name", "file_name")
_ID_KEYS = frozenset({"session_id", "file_id", "msg_id"})


def folded(text: str) -> str:
    """Return a text as it is compared: NFKC, without case, each run of white space as one blank, none at the ends.

    A letter keeps its first 30 combining marks.
    """
    if text.isascii():
        return " ".join(text.lower().split())
    # NFKC sorts the marks on a letter, and its time grows with the square of their number. One message with half a
    # million marks held the whole process for five minutes.
    few_marks = _TOO_MANY_MARKS.sub(r"\1", text)
    once = unicodedata.normalize("NFKC", few_marks).casefold()
    return " ".join(unicodedata.normalize("NFKC", once).split())


def text_of(msg_type: str, body: Sequence[dict[str, Any]]) -> str:
    """Return the searchable text of a message, folded, one line for each part; empty: it cannot be found.

    Text messages are searched by their text, to-dos by every text in them, files by their name if the client gave one.
    """
    parts = (folded(part) for element in body for part in _parts(MsgType(msg_type), element))
    return "\n".join(part for part in parts if part)


def _parts(msg_type: MsgType, element: dict[str, Any]) -> Iterator[str]:
    kind = REGISTRY[msg_type]
    if kind.carries_file:
        yield from _strings([element.get(key) for key in _NAME_KEYS])
    elif any(field.name == "text" for field in kind.element):
        yield from _strings(element.get("text"))
    elif kind.is_chat:
        yield from _strings(element)


def _strings(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, item in value.items():
            if key not in _ID_KEYS:
                yield from _strings(item)
    elif isinstance(value, list):
        for item in value:
            yield from _strings(item)


def grams_of_text(text: str) -> set[int]:
    """Return the numbers of a folded text: its pairs, and its single characters that can be a word."""
    return _pairs(text) | _words_alone(text)


def grams_of_query(text: str) -> set[int]:
    """Return numbers that every message with this folded text has; none for a single letter of an alphabet."""
    return _pairs(text) if len(text) > 1 else _words_alone(text)


def _pairs(text: str) -> set[int]:
    return set(map(_pair, text, text[1:]))


def _words_alone(text: str) -> set[int]:
    return {_pair(_ALONE, char) for char in set(text) if char >= _FIRST_IDEOGRAPHIC}


@lru_cache(maxsize=65_536)  # most pairs come often, and Python's arithmetic beyond 30 bits is ten times slower
def _pair(one: str, two: str) -> int:
    first = _AFTER_THE_LAST if one == _ALONE else ord(one)
    return ((first << _CODE_BITS) + ord(two)) % _PRIME - _OFFSET


def gram_of_conversation(conversation_id: str) -> int:
    """Return the number that marks all messages of a conversation."""
    return _gram_of("conversation", conversation_id)


def gram_of_person(user_id: str) -> int:
    """Return the number that marks all messages to or from a user in conversations of two people."""
    return _gram_of("person", user_id)


def gram_of_sender(user_id: str) -> int:
    """Return the number that marks all messages that a user sent."""
    return _gram_of("sender", user_id)


def gram_of_block(bits: int, seq: int) -> int:
    """Return the number that marks all messages in the block of 2**bits seqs that contains `seq`."""
    return _gram_of(f"block {bits}", str(seq >> bits))


@lru_cache(maxsize=65_536)
def _gram_of(kind: str, name: str) -> int:
    return zlib.crc32(f"{kind}:{name}".encode()) - _OFFSET


def grams_of_message(seq: int, conversation_id: str, sender: str, recipient: str | None, text: str) -> set[int]:
    """Return all numbers by which a message with that folded text is found."""
    grams = grams_of_text(text)
    grams.update(gram_of_block(bits, seq) for bits in BLOCK_BITS)
    grams.update((gram_of_conversation(conversation_id), gram_of_sender(sender)))
    if recipient is not None:
        grams.update((gram_of_person(sender), gram_of_person(recipient)))
    return grams
