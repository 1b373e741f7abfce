"""The endpoints below /v1/operations."""

import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

from tlim_admin.backup.manifest import BackupError
from tlim_admin.http import Answer

PAGE = 100
_ABOUT_THE_LETTER = {404, 409, 422}


class LetterRefusedError(BackupError):
    """An answer about the one thing that was asked for."""


class Operations:
    """The page of operations of one deployment."""

    def __init__(self, gateway: str, token: str) -> None:
        self._url, self._headers = f"{gateway.rstrip('/')}/v1/operations", {"Authorization": f"Bearer {token}"}

    def message(self, msg_id: str) -> dict[str, Any]:
        """Return the way of a message: `rows` of the log, and `steps` with their times. Raises BackupError."""
        found: dict[str, Any] = self._call(f"/messages/{quote(msg_id, safe='')}")
        return found

    def dead_letters(self) -> Iterator[dict[str, Any]]:
        """Give the messages that nobody could process, newest first. Raises BackupError."""
        before = ""
        while True:
            page = self._call(f"/dead-letters?limit={PAGE}{before}")
            yield from page["items"]
            if page.get("next_before") is None:
                return
            before = f"&before={page['next_before']}"

    def redrive(self, seq: int) -> None:
        """Publish a dead letter again, under its old subject. Raises LetterRefusedError, or BackupError for all."""
        self._call(f"/dead-letters/{seq}/redrive", b"{}")

    def _call(self, path: str, body: bytes | None = None) -> Any:  # noqa: ANN401 - each path has its own document
        kind = {} if body is None else {"Content-Type": "application/json"}
        answer = Answer(f"{self._url}{path}", {**self._headers, **kind}, body)
        if answer.status != 200:
            kind_of_error = LetterRefusedError if answer.status in _ABOUT_THE_LETTER else BackupError
            raise kind_of_error(f"the gateway answers {answer.status}: {_detail(answer.body)}")
        try:
            return json.loads(answer.body)
        except ValueError:
            raise BackupError(f"{self._url}{path} gives no JSON: is it the gateway?") from None


def _detail(body: bytes) -> str:
    try:
        problem = json.loads(body)
        return str(problem.get("detail") or problem.get("title"))
    except (ValueError, AttributeError):
        return body[:200].decode(errors="replace")
