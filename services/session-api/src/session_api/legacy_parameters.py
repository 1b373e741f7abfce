"""The specification's parameters in query, form or JSON, read for the rules (docs/wire-protocol.md, "Legacy HTTP")."""

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl

from fastapi import Request
from starlette.exceptions import HTTPException
from tlim_protocol.errors import ErrorCode, TlimError, quoted
from tlim_protocol.lenient import read_json
from tlim_runtime.bodies import body_in_time, read_body

from session_api.edits import MAX_LISTED, Edit, NewSession

Parameters = Mapping[str, object]
"""Values by name: text from a query or form, any JSON value from a JSON body."""

MAX_FIELDS = 100
"""Far more than needed: the specification has at most five parameters, and clients add a few of their own."""

MAX_VALUES = 5 * MAX_LISTED
"""The most JSON values in a body or in `subscribers`: each element with its three fields, and one more for each."""

USER_PARAMETERS = ("request_user", "session_user", "user_id")
"""The parameters in which callers without a token name the user; the first that is given counts."""

_INTEGER = re.compile(r"[0-9]{1,20}")
_FORM = "application/x-www-form-urlencoded"
_REMOVING = frozenset({"del", "delete"})


async def read_parameters(request: Request, max_bytes: int) -> Parameters:
    """Return the parameters of the query and of the body, whatever its media type; the body wins.

    Raises JSON_INVALID for a JSON body that is not an object, FIELD_INVALID for a form that is malformed or not UTF-8,
    BodyTooSlow.
    """
    parameters = dict[str, object](_read_form(request.scope["query_string"]))
    media_type = request.headers.get("content-type", _FORM).partition(";")[0].strip().lower()
    if request.method != "POST":
        return parameters
    if media_type == "multipart/form-data":
        return parameters | await _read_multipart(request, max_bytes)
    body = await read_body(request)
    if media_type == _FORM:
        return parameters | _read_form(body)
    return parameters | (_read_object(body) if body else {})


def read_new_session(parameters: Parameters) -> NewSession:
    """Return the request of addSession.

    Raises SESSION_TYPE_INVALID, and what `_read_elements` raises.
    """
    session_type = _read_integer(parameters.get("session_type"))
    elements = _read_elements(parameters.get("subscribers"))
    return NewSession(session_type, [_read_user(element) for element in elements])


def read_edit(parameters: Parameters) -> Edit:
    """Return the request of modifySession.

    Raises FIELD_INVALID for an unknown `type`, and what `_read_elements` raises.
    """
    name = _read_text(parameters, "session_name")
    add: list[str] = []
    remove: list[str] = []
    if parameters.get("subscribers") is not None:
        for element in _read_elements(parameters["subscribers"]):
            (remove if _is_removal(element) else add).append(_read_user(element))
    return Edit(name, add, remove)


def read_session_id(parameters: Parameters) -> str:
    """Return the session_id, '' when it is missing; raises FIELD_INVALID when it is not a string."""
    return (_read_text(parameters, "session_id") or "").strip()


def read_named_user(parameters: Parameters) -> str | None:
    """Return the user that the request names, None when it names nobody."""
    for name in USER_PARAMETERS:
        named = _read_text(parameters, name)
        if named and named.strip():
            return named
    return None


def _read_form(raw: bytes) -> dict[str, str]:
    # Starlette's parsers read raw bytes (not percent-encoded) as Latin-1, but old clients send UTF-8.
    try:
        pairs = parse_qsl(raw.decode(), keep_blank_values=True, max_num_fields=MAX_FIELDS, errors="strict")
    except ValueError as error:
        raise TlimError(ErrorCode.FIELD_INVALID, "the parameters are not UTF-8, or too many") from error
    return dict(pairs)


async def _read_multipart(request: Request, max_bytes: int) -> dict[str, object]:
    try:
        async with body_in_time(), request.form(max_fields=MAX_FIELDS, max_part_size=max_bytes) as form:
            return dict(form.items())
    except HTTPException as error:
        if error.status_code != 400:
            raise
        raise TlimError(ErrorCode.FIELD_INVALID, f"the form does not parse: {error.detail}") from error


def _read_object(body: bytes) -> dict[str, Any]:
    value = read_json(body, MAX_VALUES)
    if not isinstance(value, dict):
        raise TlimError(ErrorCode.JSON_INVALID, "the request body is not a JSON object")
    return value


def _read_text(parameters: Parameters, name: str) -> str | None:
    value = parameters.get(name)
    if value is not None and not isinstance(value, str):
        raise TlimError(ErrorCode.FIELD_INVALID, f"{name} is not a string", field=name)
    return value


def _read_integer(value: object) -> int:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, str) and _INTEGER.fullmatch(value.strip()):
        return int(value)
    raise TlimError(ErrorCode.SESSION_TYPE_INVALID, "session_type is not an integer ≥ 0", field="session_type")


def _read_elements(value: object) -> list[dict[str, Any]]:
    """Return `subscribers` as a list of objects.

    Raises FIELD_INVALID when it is missing or too long, JSON_INVALID when its text does not parse, NOT_AN_ARRAY
    otherwise.
    """
    if value is None:
        raise TlimError(ErrorCode.FIELD_INVALID, "subscribers is missing", field="subscribers")
    if isinstance(value, str):
        value = read_json(value, MAX_VALUES)
    if not isinstance(value, list) or not all(isinstance(element, dict) for element in value):
        raise TlimError(ErrorCode.NOT_AN_ARRAY, "subscribers is not an array of objects", field="subscribers")
    if len(value) > MAX_LISTED:
        raise TlimError(ErrorCode.FIELD_INVALID, f"subscribers has over {MAX_LISTED} elements", field="subscribers")
    return value


def _read_user(element: Mapping[str, Any]) -> str:
    user_id = element.get("user_id")
    if user_id is None:
        raise TlimError(ErrorCode.USER_UNKNOWN, "a subscriber has no user_id", field="user_id")
    if not isinstance(user_id, str):
        raise TlimError(ErrorCode.FIELD_INVALID, f"user_id {quoted(user_id)} is not a string", field="user_id")
    return user_id


def _is_removal(element: Mapping[str, Any]) -> bool:
    kind = element.get("type")
    if kind == "add":
        return False
    if isinstance(kind, str) and kind in _REMOVING:
        return True
    raise TlimError(ErrorCode.FIELD_INVALID, f"type {quoted(kind)} is neither add nor del", field="type")
