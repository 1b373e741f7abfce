"""The element of a notice of a session change (HTS-*), in its three forms: as the log keeps it, long, and short.

People who were just added get the long form. All others get the short form, so a change of a large group stays cheap.
"""

from collections.abc import Mapping
from typing import Any

from tlim_protocol.lenient import write_json

Element = dict[str, Any]

MAX_LISTED = 200
"""The whole list of subscribers is told up to this many: about 6 KB for each person who was just added."""

SHORT_BYTES = 560
"""What a short element is cut to. The rest of the stanza takes about 430 bytes with ids of usual length, so the whole
stanza stays below 1 KB. A name of 128 Chinese characters alone takes 384."""

_WHOLE_LIST = "subscribers"
_CHANGES = ("added", "removed")
_KNOWN = ("session_type", "session_user", "session_create_time", "session_modify_time", "session_delete_time")


def kept_form(element: Mapping[str, Any]) -> Element:
    """Return what the log keeps of a whole element: enough for the long form only if anybody gets that.

    `element` lists people in `subscribers`, `added` and `removed`, each person as `{"user_id": …}`.
    """
    short = short_form(element)
    if not element["added"] or len(element[_WHOLE_LIST]) > MAX_LISTED:
        return short
    removed: Element = {name: short[name] for name in ("removed", "removed_count") if name in short}
    return {**{name: value for name, value in element.items() if name != "removed"}, **removed}


def short_form(element: Mapping[str, Any]) -> Element:
    """Return the short form: how many subscribers there are, and who was added and removed.

    In an element longer than SHORT_BYTES a list is replaced by its length, the longer list first: `added_count`,
    `removed_count`. The fields that the receivers know, or that `msg_time` says, are left out before the lists.
    """
    short = {name: value for name, value in element.items() if name != _WHOLE_LIST and name not in _KNOWN}
    if _WHOLE_LIST in element:
        short["subscribers_count"] = len(element[_WHOLE_LIST])
    for name in sorted(_CHANGES, key=lambda name: len(short.get(name, ())), reverse=True):
        if short.get(name) and _is_long(short):
            short[f"{name}_count"] = len(short.pop(name))
    full = {**{name: element[name] for name in _KNOWN if name in element}, **short}
    return short if _is_long(full) else full


def _is_long(element: Element) -> bool:
    return len(write_json(element).encode()) > SHORT_BYTES


def long_form(element: Mapping[str, Any]) -> Element:
    """Return the long form: the short one and the whole list of subscribers, if the log keeps it."""
    whole = {name: value for name, value in element.items() if name == _WHOLE_LIST}
    return {**short_form(element), **whole}


def newcomers(element: Mapping[str, Any]) -> frozenset[str]:
    """Return the people who get the long form; nobody if there is none."""
    return frozenset(one["user_id"] for one in element.get("added", ())) if _WHOLE_LIST in element else frozenset()


def form_for(user_id: str, element: Mapping[str, Any]) -> Element:
    """Return the form that this person gets."""
    return long_form(element) if user_id in newcomers(element) else short_form(element)
