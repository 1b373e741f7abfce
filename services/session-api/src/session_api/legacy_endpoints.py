"""The specification's own addresses: addSession, modifySession, deleteSession (specification section 5, 13 to 15)."""

from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from tlim_protocol.errors import ErrorCode, TlimError
from tlim_runtime.auth import CurrentUser, caller, token_user
from tlim_runtime.errors import LegacyRoute, NotAuthenticated, problem_responses
from tlim_runtime.turns import TURN_RESPONSES, Turns

from session_api import legacy_parameters as parameters
from session_api.dependencies import IDEMPOTENCY_KEY, IdempotencyKeyDep, SessionsDep, SettingsDep
from session_api.edits import Edit, NewSession, checked_session_id
from session_api.endpoints import MAX_BODY_BYTES
from session_api.schemas import SessionAdded, SessionDeleted, SessionModified, SessionRefused
from session_api.service import Caller


class Utf8Json(JSONResponse):
    """JSON that says that it is UTF-8, as the specification's clients expect (specification section 8)."""

    media_type = "application/json; charset=utf-8"


async def _parameters(
    request: Request, token: Annotated[CurrentUser | None, Depends(token_user)], settings: SettingsDep
) -> parameters.Parameters:
    if token is None and not settings.trust_request_user:
        raise NotAuthenticated("a bearer token is needed")  # before reading what a stranger sent
    if token is None:
        return await parameters.read_parameters(request, MAX_BODY_BYTES)  # only the body names the user
    bodies: Turns = request.app.state.bodies  # as TokenFirstRoute does it
    async with bodies.one(token.user_id):
        return await parameters.read_parameters(request, MAX_BODY_BYTES)


ParametersDep = Annotated[parameters.Parameters, Depends(_parameters)]


async def _turn(
    request: Request,
    token: Annotated[CurrentUser | None, Depends(token_user)],
    given: ParametersDep,
    settings: SettingsDep,
) -> AsyncIterator[None]:
    """Hold the caller's turn, as turns.IN_TURN does. A request that names nobody is refused without a connection."""
    named = parameters.read_named_user(given) if token is None else None
    if token is None and named is None:
        yield
        return
    turns: Turns = request.app.state.turns
    async with turns.one(caller(token, named, settings).user_id):
        yield


endpoints = APIRouter(
    dependencies=[Depends(_turn, scope="function")],
    route_class=LegacyRoute,
    default_response_class=Utf8Json,
    tags=["specification"],
    responses={**problem_responses(ErrorCode.UNAVAILABLE, statuses=(401, 413)), **TURN_RESPONSES},
    max_body_size=MAX_BODY_BYTES,
)


async def _caller(
    token: Annotated[CurrentUser | None, Depends(token_user)], given: ParametersDep, settings: SettingsDep
) -> Caller:
    user = caller(token, parameters.read_named_user(given) if token is None else None, settings)
    return Caller(user.user_id, authenticated=token is not None)


async def _creator(
    token: Annotated[CurrentUser | None, Depends(token_user)], given: ParametersDep, settings: SettingsDep
) -> Caller:
    if token is None and parameters.read_named_user(given) is None:
        raise TlimError(ErrorCode.SESSION_USER_UNKNOWN, "no user is named", field="session_user")
    return await _caller(token, given, settings)


async def _new_session(given: ParametersDep) -> NewSession:
    return parameters.read_new_session(given)


async def _session_id(given: ParametersDep) -> str:
    return checked_session_id(parameters.read_session_id(given))


async def _edit(given: ParametersDep) -> Edit:
    return parameters.read_edit(given)


def _described(method: str, **texts: str) -> dict[str, Any]:
    """Return the OpenAPI of parameters that are read by hand: in the query, or as a form or JSON body."""
    if method == "get":
        return {
            "parameters": [
                {"name": name, "in": "query", "description": text, "schema": {"type": "string"}}
                for name, text in texts.items()
            ]
        }
    schema = {
        "type": "object",
        "properties": {name: {"type": "string", "description": text} for name, text in texts.items()},
    }
    media_types = ("application/x-www-form-urlencoded", "multipart/form-data", "application/json")
    return {"requestBody": {"content": {media_type: {"schema": schema} for media_type in media_types}}}


def _with_key(described: dict[str, Any]) -> dict[str, Any]:
    """Return the OpenAPI of a route that also reads Idempotency-Key."""
    return described | {"parameters": [IDEMPOTENCY_KEY, *described.get("parameters", [])]}


def _answering(model: type[BaseModel]) -> dict[str, Any]:
    """Return what all routes here share: HTTP 200 for success and refusal, nothing said about what is not there."""
    return {"response_model": model | SessionRefused, "response_model_exclude_none": True}


_ADD = {
    "session_type": "an integer ≥ 0",
    "subscribers": 'JSON array: [{"user_id":"alice"}]; in a JSON body also as an array itself',
}
_MODIFY = {
    "session_id": "the session",
    "session_name": "a new name, at most 128 characters",
    "subscribers": 'JSON array: [{"user_id":"alice","type":"add"},{"user_id":"bob","type":"del"}]',
}
_DELETE = {"session_id": "the session"}


@endpoints.get("/addSession", openapi_extra=_with_key(_described("get", **_ADD)), **_answering(SessionAdded))
@endpoints.post("/addSession", openapi_extra=_with_key(_described("post", **_ADD)), **_answering(SessionAdded))
async def add_session(
    creator: Annotated[Caller, Depends(_creator)],
    new: Annotated[NewSession, Depends(_new_session)],
    key: IdempotencyKeyDep,
    sessions: SessionsDep,
) -> SessionAdded:
    """Create a session; a refusal is `{"result":"fail","result_detail":"error-00x","detail":"…"}`."""
    return SessionAdded.of(await sessions.create(creator, new, key))


@endpoints.get("/modifySession", openapi_extra=_described("get", **_MODIFY), **_answering(SessionModified))
@endpoints.post("/modifySession", openapi_extra=_described("post", **_MODIFY), **_answering(SessionModified))
async def modify_session(
    user: Annotated[Caller, Depends(_caller)],
    session_id: Annotated[str, Depends(_session_id)],
    edit: Annotated[Edit, Depends(_edit)],
    sessions: SessionsDep,
) -> SessionModified:
    """Rename a session, add and remove subscribers, all or nothing."""
    return SessionModified.of(await sessions.edit(user, session_id, edit))


@endpoints.get("/deleteSession", openapi_extra=_described("get", **_DELETE), **_answering(SessionDeleted))
@endpoints.post("/deleteSession", openapi_extra=_described("post", **_DELETE), **_answering(SessionDeleted))
async def delete_session(
    user: Annotated[Caller, Depends(_caller)],
    session_id: Annotated[str, Depends(_session_id)],
    sessions: SessionsDep,
) -> SessionDeleted:
    """Delete a session for everybody."""
    return SessionDeleted.of(await sessions.delete(user, session_id))


router = APIRouter()
router.include_router(endpoints, prefix="/plugin/tlim")
router.include_router(endpoints, prefix="/plugins/tlim", include_in_schema=False)  # the same, as Openfire routes it
