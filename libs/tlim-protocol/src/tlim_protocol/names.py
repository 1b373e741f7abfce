"""Names of people and sessions: one check for all of them, and what is done to a name that we make ourselves."""

from tlim_protocol.characters import DIRECTION_CHANGES, LINE_BREAKS, is_plain_text, shows_something
from tlim_protocol.errors import ErrorCode, TlimError, quoted

MAX_NAME = 128
"""The specification gives a session's name so many characters (section 2), and makes it of user names."""


def checked_name(raw: str, *, field: str, unseen: ErrorCode = ErrorCode.FIELD_INVALID) -> str:
    """Return the name of a person or a session: 1 to 128 characters, of which the reader sees at least one.

    Raises `unseen` for a name that shows nothing or changes the direction of text, FIELD_INVALID for one that is too
    long or holds a control character or line break. Both name `field`.
    """
    if len(raw) > MAX_NAME:
        raise TlimError(ErrorCode.FIELD_INVALID, f"{field} is longer than {MAX_NAME} characters", field=field)
    if raw.strip() and not (is_plain_text(raw) and LINE_BREAKS.isdisjoint(raw)):
        detail = f"{field} {quoted(raw)} holds a control character or a line break"
        raise TlimError(ErrorCode.FIELD_INVALID, detail, field=field)
    if not shows_something(raw):
        raise TlimError(unseen, f"{field} {quoted(raw)} shows nothing", field=field)
    if not DIRECTION_CHANGES.isdisjoint(raw):
        raise TlimError(unseen, f"{field} {quoted(raw)} changes the direction of text", field=field)
    return raw


def joined_names(names: list[str]) -> str:
    """Return names joined by commas, cut to 128 characters, without what would rearrange or break the line.

    The directory may hold names from before `checked_name` was asked.
    """
    joined = ",".join(names[:MAX_NAME])  # each has a comma: more of them would be cut off
    return "".join(char for char in joined if char not in DIRECTION_CHANGES | LINE_BREAKS)[:MAX_NAME]
