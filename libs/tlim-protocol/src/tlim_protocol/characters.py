"""What single characters do to a line of text: control it, show nothing, join neighbours, change its direction."""

import unicodedata

JOINERS = frozenset("\u200c\u200d")
"""They change how visible neighbours look (Persian, Indic scripts, family emoji), and show nothing themselves."""

DIRECTION_MARKS = frozenset("\u061c\u200e\u200f")
"""They count as a letter of one direction (UAX 9, section 2.6): names of people carry them, file names may not."""

DIRECTION_CHANGES = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
"""Embeddings, overrides and isolates (UAX 9, sections 2.1 to 2.5): a name with one rearranges the line around it."""

LINE_BREAKS = frozenset("\u2028\u2029")
"""By category they are no control characters, and they end a line all the same."""

_BLANK = frozenset("\u115f\u1160\u2065\u2800\u3164\uffa0\U00013441\U00013442\U0001d159")
"""Letters and symbols by category that are drawn as nothing: fillers of Hangul and of hieroglyphs, the empty Braille
cell, the empty note head. U+2065 is unassigned, and fonts ignore it."""

_DRAWN = frozenset("LNPS")
"""First letters of the categories that are drawn. A combining mark (M) needs something to stand on."""


def is_plain_text(value: str) -> bool:
    """Tell whether `value` can stand in XML attributes, log lines and NATS headers: no control characters."""
    return value.isprintable() or not any(
        unicodedata.category(char) in {"Cc", "Cs"} or ord(char) & 0xFFFE == 0xFFFE for char in value
    )


def shows_something(text: str) -> bool:
    """Tell whether a reader sees anything of `text`; spaces, format characters, fillers and lone marks show nothing."""
    return any(_is_drawn(char) for char in text)


def _is_drawn(char: str) -> bool:
    category = unicodedata.category(char)
    if category == "Cn":  # a new emoji may be younger than this Python's tables; the two ranges are never drawn
        return not 0xFFF0 <= ord(char) <= 0xFFFF and not 0xE0000 <= ord(char) <= 0xE0FFF and char not in _BLANK
    return (category[0] in _DRAWN or category == "Co") and char not in _BLANK
