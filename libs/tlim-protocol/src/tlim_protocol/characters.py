"""What single characters do to a line of text: some control it, show nothing, join letters or change its direction."""

import unicodedata

JOINERS = frozenset("\u200c\u200d")
"""They show nothing themselves. They change how their neighbours look (Persian, Indic scripts, family emoji)."""

DIRECTION_CHANGES = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
"""Embeddings, overrides and isolates (UAX 9, sections 2.1 to 2.5): a name with one rearranges the line around it."""

LINE_BREAKS = frozenset("\u2028\u2029")
"""They end a line, although their category is not that of control characters."""

_BLANK = frozenset("\u115f\u1160\u2065\u2800\u3164\uffa0\U00013441\U00013442\U0001d159")
"""Characters that show nothing, although their category says letter or symbol: fillers of Hangul and of hieroglyphs,
the empty Braille cell, the empty note head. U+2065 is unassigned, and fonts ignore it."""

_DRAWN = frozenset("LNPS")
"""First letters of the categories that are drawn. A combining mark (M) needs something to stand on."""


def is_plain_text(value: str) -> bool:
    """Tell whether `value` can stand in XML attributes, log lines and NATS headers: no control characters."""
    return value.isprintable() or not any(
        unicodedata.category(char) in {"Cc", "Cs"} or ord(char) & 0xFFFE == 0xFFFE for char in value
    )


def shows_something(text: str) -> bool:
    """Tell whether a reader sees anything in `text`. Spaces, format characters, fillers and lone marks show nothing."""
    return any(_is_drawn(char) for char in text)


def _is_drawn(char: str) -> bool:
    category = unicodedata.category(char)
    # An unassigned character may be an emoji that is newer than Python's tables. The two ranges are never drawn.
    if category == "Cn":
        return not 0xFFF0 <= ord(char) <= 0xFFFF and not 0xE0000 <= ord(char) <= 0xE0FFF and char not in _BLANK
    return (category[0] in _DRAWN or category == "Co") and char not in _BLANK
