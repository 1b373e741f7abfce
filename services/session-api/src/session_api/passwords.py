"""Which passwords an XMPP server takes: SASLprep (RFC 4013) must not refuse them, nor leave nothing of them."""

import stringprep
import unicodedata
from collections.abc import Callable

MAX_PASSWORD = 256

_PROHIBITED: tuple[Callable[[str], bool], ...] = (
    stringprep.in_table_a1,  # unassigned in Unicode 3.2, which servers use for SASLprep: emoji, ẞ, ₽
    stringprep.in_table_c12,
    stringprep.in_table_c21_c22,
    stringprep.in_table_c3,
    stringprep.in_table_c4,
    stringprep.in_table_c5,
    stringprep.in_table_c6,
    stringprep.in_table_c7,
    stringprep.in_table_c8,
    stringprep.in_table_c9,
)


def is_password(raw: str) -> bool:
    """Tell whether an XMPP server can keep `raw` as a password: 1 to 256 characters, also once they are prepared.

    In a text from right to left the first and the last character must be of that direction (RFC 3454 section 6).
    """
    spaced = (" " if stringprep.in_table_c12(char) else char for char in raw if not stringprep.in_table_b1(char))
    prepared = unicodedata.normalize("NFKC", "".join(spaced))
    if not prepared or len(raw) > MAX_PASSWORD or any(refused(char) for refused in _PROHIBITED for char in prepared):
        return False
    leftward = [stringprep.in_table_d1(char) for char in prepared]
    if not any(leftward):
        return True
    return leftward[0] and leftward[-1] and not any(stringprep.in_table_d2(char) for char in prepared)
