"""Names of people and sessions: the check of a given name, and how we make a name out of others."""

from tlim_protocol.characters import DIRECTION_CHANGES, LINE_BREAKS, is_plain_text, shows_something
from tlim_protocol.errors import ErrorCode, TlimError, quoted

MAX_NAME = 128
"""The longest name of a session, in characters (specification section 2). It is made of user names, so these have the
same limit."""


def checked_name(raw: str, *, field: str, unseen: ErrorCode = ErrorCode.FIELD_INVALID) -> str:
    """Return the name of a person or a session: 1 to 128 characters, at least one of them visible.

    Raises `unseen` for a name that shows nothing or changes the direction of text. Raises FIELD_INVALID for a name
    that is too long, or holds a control character or a line break. Both errors name `field`.
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
    """Return names joined by commas and cut to 128 characters.

    Line breaks and changes of direction are removed: the directory may hold names that are older than `checked_name`.
    """
    joined = ",".join(names[:MAX_NAME])  # each name adds at least its comma, so later names would be cut off anyway
    return "".join(char for char in joined if char not in DIRECTION_CHANGES | LINE_BREAKS)[:MAX_NAME]
