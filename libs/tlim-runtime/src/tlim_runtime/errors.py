"""One place that turns every failure into an HTTP answer: problem documents, or the specification's shape."""

from collections.abc import Mapping
from http import HTTPStatus
from types import MappingProxyType
from typing import Any, cast

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from fastapi.routing import APIRoute
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.routing import Match
from tlim_protocol.errors import ERRORS, ErrorCode, TlimError

from tlim_runtime.logging import get_logger
from tlim_runtime.outages import Unavailable

logger = get_logger(__name__)

PROBLEM_JSON = "application/problem+json"  # RFC 9457

STATUS: Mapping[ErrorCode, int] = MappingProxyType(
    {
        ErrorCode.BODY_EMPTY: 422,
        ErrorCode.MSG_TYPE_INVALID: 422,
        ErrorCode.SESSION_TYPE_INVALID: 422,
        ErrorCode.SESSION_NAME_EMPTY: 422,
        ErrorCode.SESSION_USER_UNKNOWN: 422,
        ErrorCode.JSON_INVALID: 400,
        ErrorCode.NOT_AN_ARRAY: 422,
        ErrorCode.SESSION_ID_EMPTY: 422,
        ErrorCode.USER_UNKNOWN: 404,
        ErrorCode.SESSION_UNKNOWN: 404,
        ErrorCode.UNAVAILABLE: 503,
        ErrorCode.NOT_ALLOWED: 403,
        ErrorCode.FROM_NOT_SENDER: 403,
        ErrorCode.FILE_UNKNOWN: 404,
        ErrorCode.MSG_ID_UNKNOWN: 404,
        ErrorCode.RECALL_TOO_LATE: 409,
        ErrorCode.FIELD_INVALID: 422,
        ErrorCode.TOO_MANY_REQUESTS: 429,
        ErrorCode.UNSUPPORTED: 422,
    }
)
"""The HTTP status of each code in the modern API."""


class Problem(BaseModel):
    """An RFC 9457 problem document; `code` and `field` are tlim's additions."""

    type: str
    title: str
    status: int
    detail: str
    code: ErrorCode | None = None
    field: str | None = None


class HttpRefusal(TlimError):  # noqa: N818 - named for what it is, like those below
    """A refusal with an HTTP status and headers of its own, also on the specification's endpoints."""

    status: int = 400

    def headers(self) -> dict[str, str]:
        """Return the headers that belong to the status."""
        return {}


class NotAuthenticated(HttpRefusal):
    """No token, or one that cannot be trusted: 401."""

    status = 401

    def __init__(self, detail: str) -> None:
        super().__init__(ErrorCode.NOT_ALLOWED, detail)

    def headers(self) -> dict[str, str]:
        """Return the challenge of RFC 6750."""
        return {"WWW-Authenticate": 'Bearer realm="tlim"'}


class PayloadTooLarge(HttpRefusal):
    """The request body is larger than this service takes: 413."""

    status = 413

    def __init__(self, detail: str, *, field: str | None = None) -> None:
        super().__init__(ErrorCode.FIELD_INVALID, detail, field=field)


class TooManyRequests(HttpRefusal):
    """The caller's rate limit is used up: 429, to be tried again after `retry_after` seconds."""

    status = 429

    def __init__(self, detail: str, *, retry_after: int) -> None:
        super().__init__(ErrorCode.TOO_MANY_REQUESTS, detail)
        self.retry_after = retry_after

    def headers(self) -> dict[str, str]:
        """Return when to come back."""
        return {"Retry-After": str(self.retry_after)}


class LegacyRoute(APIRoute):
    """A route of the specification: refusals are HTTP 200 with 'fail' (docs/wire-protocol.md, "Legacy HTTP").

    Use as `APIRouter(route_class=LegacyRoute)`.
    """


_REAL_STATUSES = frozenset({401, 413, 429})  # sent as they are, like 5xx, also on the specification's endpoints


_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")


def install_error_handlers(app: FastAPI) -> None:
    """Render TlimError, outages, invalid requests and the framework's own refusals in the shape of their route."""
    app.add_exception_handler(TlimError, _on_refusal)
    app.add_exception_handler(Unavailable, _on_outage)
    app.add_exception_handler(RequestValidationError, _on_invalid_request)
    app.add_exception_handler(HTTPException, _on_http_exception)


def status_of(error: TlimError) -> int:
    """Return the HTTP status of a refusal in the modern API."""
    return error.status if isinstance(error, HttpRefusal) else STATUS[error.code]


def problem(status: int, detail: str, *, code: ErrorCode | None = None, field: str | None = None) -> JSONResponse:
    """Return a problem document as an answer."""
    title = ERRORS[code].meaning if code else _phrase(status)
    document = Problem(
        type=f"urn:tlim:{code.value}" if code else "about:blank",
        title=title,
        status=status,
        detail=detail,
        code=code,
        field=field,
    )
    return JSONResponse(document.model_dump(exclude_none=True), status_code=status, media_type=PROBLEM_JSON)


def problem_responses(*codes: ErrorCode, statuses: tuple[int, ...] = ()) -> dict[int | str, dict[str, Any]]:
    """Return the `responses=` of a route that can refuse with these codes (and bare statuses such as 413)."""
    meanings: dict[int, list[str]] = {status: [_phrase(status)] for status in statuses}
    for code in codes:
        meanings.setdefault(STATUS[code], []).append(f"`{code.value}` {ERRORS[code].meaning}")
    schema = {"$ref": "#/components/schemas/Problem"}
    responses: dict[int | str, dict[str, Any]] = {
        status: {"description": "; ".join(texts), "content": {PROBLEM_JSON: {"schema": schema}}}
        for status, texts in sorted(meanings.items())
    }
    if 429 in responses:
        wait = {"description": "In how many seconds it would pass.", "schema": {"type": "integer", "minimum": 1}}
        responses[429]["headers"] = {"Retry-After": wait}
    return responses


def _phrase(status: int) -> str:
    # RFC 9110 renamed status 413, and Python has the new name since 3.13. openapi.json must not depend on Python.
    return "Content Too Large" if status == 413 else HTTPStatus(status).phrase


def _render(request: Request, error: TlimError) -> Response:
    status = status_of(error)
    if isinstance(request.scope.get("route"), LegacyRoute) and status not in _REAL_STATUSES and status < 500:
        return JSONResponse(
            {"result": "fail", "result_detail": error.code.value, "detail": error.detail},
            media_type="application/json; charset=utf-8",
        )
    answer = problem(status, error.detail, code=error.code, field=error.field)
    if isinstance(error, HttpRefusal):
        answer.headers.update(error.headers())
    return answer


async def _on_refusal(request: Request, error: Exception) -> Response:
    refusal = cast("TlimError", error)
    if refusal.code is ErrorCode.UNAVAILABLE:
        logger.warning("refused: unavailable", detail=refusal.detail)
    return _render(request, refusal)


async def _on_outage(request: Request, error: Exception) -> Response:
    logger.warning("a dependency is unavailable", reason=str(error), kind=type(error).__name__)
    return _render(request, TlimError(ErrorCode.UNAVAILABLE, "the server could not process it now, try again"))


async def _on_invalid_request(request: Request, error: Exception) -> Response:
    first = cast("RequestValidationError", error).errors()[0]
    place = [str(part) for part in first["loc"][1:]] or [str(part) for part in first["loc"]]
    field = ".".join(place)
    if first["type"] == "json_invalid":
        return _render(request, TlimError(ErrorCode.JSON_INVALID, "the request body is not valid JSON"))
    return _render(request, TlimError(ErrorCode.FIELD_INVALID, f"{field}: {first['msg']}", field=field))


async def _on_http_exception(request: Request, error: Exception) -> Response:
    refusal = cast("HTTPException", error)
    if refusal.status_code < 400:
        return Response(status_code=refusal.status_code, headers=refusal.headers)
    if (
        refusal.status_code == HTTPStatus.BAD_REQUEST
    ):  # the framework's, for JSON that is no UTF-8, or nested too deeply
        return _render(request, TlimError(ErrorCode.JSON_INVALID, "the request body is not valid JSON"))
    answer = problem(refusal.status_code, str(refusal.detail))
    answer.headers.update(refusal.headers or {})
    if refusal.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        answer.headers["Allow"] = ", ".join(_allowed_methods(request))
    return answer


def _allowed_methods(request: Request) -> list[str]:
    """Return all methods of an address. The framework names only the methods of the first matching route."""
    asked = {"type": "http", "path": request.scope["path"], "headers": []}
    allowed = {
        method
        for method in _METHODS
        if any(route.matches({**asked, "method": method})[0] is Match.FULL for route in request.app.routes)
    }
    if "GET" in allowed and not isinstance(request.scope.get("route"), LegacyRoute):
        allowed.add("HEAD")  # requests.HeadMiddleware
    return [method for method in _METHODS if method in allowed]
