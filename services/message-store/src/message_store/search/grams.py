"""What a message can be found by: its text as it is compared, and numbers that an index can look up.

A text is found by the pairs of neighbouring characters in it, as numbers of 32 bits: two characters are a whole word in
Chinese, and any longer text is the pairs in it. Numbers may coincide and pairs may stand in another order, so the index
gives candidates, and the text decides. Beside the pairs stand a number for each thing that a search is narrowed by.
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
_AFTER_THE_LAST = 0x110000  # its code: no character has it
_FIRST_IDEOGRAPHIC = "\u2e80"  # from here on, and in emoji, one character alone says something

BLOCK_BITS = (13, 16, 19)
"""The sizes, as powers of two, of the blocks of seqs that a search goes through before it takes the whole log: first
8,192 rows, then eight times as many with each step. Larger blocks cost more than they spare: measured."""

_MAX_MARKS = 30  # on one letter: more than any language has, and what UAX #15, section 13, gives streams to expect
_MARKS = "".join(
    char
    for char in map(chr, range(0x300, 0x20000))
    if all(map(unicodedata.combining, unicodedata.normalize("NFKD", char)))
)
_TOO_MANY_MARKS = re.compile(f"([{_MARKS}]{{{_MAX_MARKS}}})[{_MARKS}]+")

_NAME_KEYS = ("name", "file_name")
_ID_KEYS = frozenset({"session_id", "file_id", "msg_id"})


def folded(text: str) -> str:
    """Return a text as it is compared: NFKC, without case, every run of white space one blank, none at the ends.

    Of more than 30 marks on one letter the first count.
    """
    if text.isascii():
        return " ".join(text.lower().split())
    # NFKC sorts the marks on a letter, in a time that grows with the square of their number: half a million of them, in
    # one message, held the whole process for five minutes
    few_marks = _TOO_MANY_MARKS.sub(r"\1", text)
    once = unicodedata.normalize("NFKC", few_marks).casefold()
    return " ".join(unicodedata.normalize("NFKC", once).split())


def text_of(msg_type: str, body: Sequence[dict[str, Any]]) -> str:
    """Return what is searched of a message, folded, its parts on lines of their own; empty: it cannot be found.

    That is the text of texts, every text of a to-do, and of files the name, where a client has given one.
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
    """Return the numbers by which a folded text is found: its pairs, and its characters that are words alone."""
    return _pairs(text) | _words_alone(text)


def grams_of_query(text: str) -> set[int]:
    """Return numbers that every message has which contains the folded text; none for a single letter."""
    return _pairs(text) if len(text) > 1 else _words_alone(text)


def _pairs(text: str) -> set[int]:
    return set(map(_pair, text, text[1:]))


def _words_alone(text: str) -> set[int]:
    return {_pair(_ALONE, char) for char in set(text) if char >= _FIRST_IDEOGRAPHIC}


@lru_cache(maxsize=65_536)  # most pairs come again and again, and arithmetic beyond 30 bits takes ten times as long
def _pair(one: str, two: str) -> int:
    first = _AFTER_THE_LAST if one == _ALONE else ord(one)
    return ((first << _CODE_BITS) + ord(two)) % _PRIME - _OFFSET


def gram_of_conversation(conversation_id: str) -> int:
    """Return the number of all messages of a conversation."""
    return _gram_of("conversation", conversation_id)


def gram_of_person(user_id: str) -> int:
    """Return the number of all messages that are to or from somebody in conversations of two."""
    return _gram_of("person", user_id)


def gram_of_sender(user_id: str) -> int:
    """Return the number of all messages of somebody."""
    return _gram_of("sender", user_id)


def gram_of_block(bits: int, seq: int) -> int:
    """Return the number of all messages in the block of 2**bits seqs that holds `seq`."""
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
