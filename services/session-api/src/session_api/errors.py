"""The refusals that only this service has, and their HTTP answers."""

from collections.abc import Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel
from tlim_protocol.errors import ERRORS, ErrorCode, TlimError
from tlim_runtime.errors import PROBLEM_JSON, HttpRefusal, Problem, status_of


class VersionConflictError(HttpRefusal):
    """The caller edits an old version of a session: 412, read it again."""

    status = 412

    def __init__(self, *, seen: int, current: int) -> None:
        detail = f"the session is at version {current}, you have seen version {seen}"
        super().__init__(ErrorCode.FIELD_INVALID, detail, field="If-Match")


class ImportRunningError(HttpRefusal):
    """Another import is making accounts, and only one at a time may: 409, try again when it has ended."""

    status = 409

    def __init__(self) -> None:
        super().__init__(ErrorCode.UNAVAILABLE, "another import is making XMPP accounts: try again when it has ended")


class RowsRefusedError(TlimError):
    """An import that was refused as a whole; `rows` holds the index (from 0) and the refusal of every bad row."""

    def __init__(self, rows: Sequence[tuple[int, TlimError]]) -> None:
        place, first = rows[0]
        super().__init__(
            ErrorCode.FIELD_INVALID,
            f"{len(rows)} of the users were refused, nobody was imported; the first is number {place}: {first.detail}",
            field=f"users.{place}.{first.field}",
        )
        self.rows = tuple(rows)


class RowProblem(BaseModel):
    """What is wrong with one row of an import; `row` counts from 0."""

    row: int
    code: ErrorCode
    field: str | None
    detail: str


class ImportProblem(Problem):
    """The problem document of an import that was refused, with every bad row."""

    rows: list[RowProblem]


def import_problem_schema() -> dict[str, Any]:
    """Return the schema of ImportProblem for OpenAPI, where Problem is a component of its own."""
    row = RowProblem.model_json_schema(ref_template="#/components/schemas/{model}")
    row.pop("$defs")
    rows = {"type": "object", "properties": {"rows": {"type": "array", "items": row}}}  # absent when no row was checked
    return {"allOf": [{"$ref": "#/components/schemas/Problem"}, rows]}


def install_import_errors(app: FastAPI) -> None:
    """Render RowsRefusedError with all its rows."""
    app.add_exception_handler(RowsRefusedError, _on_rows_refused)


async def _on_rows_refused(_request: Request, error: Exception) -> Response:
    assert isinstance(error, RowsRefusedError)  # noqa: S101 - registered for this type
    rows = [RowProblem(row=row, code=one.code, field=one.field, detail=one.detail) for row, one in error.rows]
    status = status_of(error)
    document = ImportProblem(
        type=f"urn:tlim:{error.code.value}",
        title=ERRORS[error.code].meaning,
        status=status,
        detail=error.detail,
        code=error.code,
        field=error.field,
        rows=rows,
    )
    return JSONResponse(document.model_dump(mode="json"), status_code=status, media_type=PROBLEM_JSON)
