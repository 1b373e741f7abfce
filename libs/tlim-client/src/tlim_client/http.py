"""A tlim client over HTTP: tokens, sessions, users, files and history, through the gateway."""

import json
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from email.message import Message
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Literal, Self, TypedDict, Unpack
from urllib.parse import quote, unquote

import httpx
from tlim_protocol.errors import ErrorCode

from tlim_client.failures import NotReachableError, RefusedError

Json = dict[str, Any]


class Parts(TypedDict, total=False):
    """What a request may carry besides method and path, in httpx's words."""

    params: Mapping[str, str | int]
    headers: Mapping[str, str]
    json: object
    data: Mapping[str, str]
    content: bytes
    files: Mapping[str, tuple[str, BinaryIO] | tuple[str, BinaryIO, str]]


Form = Literal["get", "form", "json"]
"""The three ways in which the specification's session endpoints take their parameters."""

PAGE = 200
"""Items asked for at a time: the most that the server gives."""

_EXTENDED_NAME = re.compile(r"filename\*\s*=\s*(?P<charset>[\w-]*)'[^']*'(?P<name>[^;\s]+)", re.IGNORECASE)  # RFC 8187
_CODES = {code.value: code for code in ErrorCode}


@dataclass(frozen=True, slots=True)
class Download:
    """A downloaded file: where it lies now, its media type, its size in bytes."""

    path: Path
    media_type: str
    size: int


class HttpClient:
    """One user (or nobody, without `token`) at the gateway; every refusal is a RefusedError with its code."""

    def __init__(
        self,
        gateway: str,
        *,
        token: str | None = None,
        timeout: float = 30,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self.token = token
        self._http = httpx.AsyncClient(base_url=gateway, timeout=timeout, transport=transport)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._http.aclose()

    # --- any request -------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def open(self, method: str, path: str, **parts: Unpack[Parts]) -> AsyncIterator[httpx.Response]:
        """Send any request and give its answer, whatever the status, with the body not yet read."""
        parts["headers"] = {
            **({"Authorization": f"Bearer {self.token}"} if self.token else {}),
            **parts.get("headers", {}),
        }
        try:
            async with self._http.stream(method, path, **parts) as answer:
                yield answer
        except httpx.TransportError as error:
            where = self._http.base_url
            raise NotReachableError(
                f"the server at {where} does not answer ({error or type(error).__name__})"
            ) from error

    async def ask(self, method: str, path: str, **parts: Unpack[Parts]) -> httpx.Response:
        """Send any request and return its answer, whatever the status, with the body read."""
        async with self.open(method, path, **parts) as answer:
            await answer.aread()
        return answer

    async def call(self, method: str, path: str, **parts: Unpack[Parts]) -> Json:
        """Send a request and return the JSON object of its answer; RefusedError for a problem or a `fail`."""
        answer = await self.ask(method, path, **parts)
        raise_refusal(answer)
        content: Json = answer.json() if answer.content else {}
        return content

    # --- tokens and users --------------------------------------------------------------------------------------

    async def log_in(self, user: str, password: str) -> Json:
        """Exchange XMPP user and password for a token (protocol section 7), keep it, and return the answer."""
        answer = await self.call("POST", "/v1/tokens", json={"username": user, "password": password})
        self.token = answer["access_token"]
        return answer

    async def put_user(self, user: str, name: str | None = None) -> Json:
        """Create or rename a user of the directory; needs the admin scope."""
        return await self.call("PUT", f"/v1/users/{quote(user, safe='')}", json={"name": name or user})

    # --- sessions: the specification's endpoints ----------------------------------------------------------------

    async def legacy(self, operation: str, form: Form = "form", *, root: str = "plugin", **fields: object) -> Json:
        """Call `addSession`, `modifySession` or `deleteSession` in one of the three forms (protocol section 6).

        Lists are sent as JSON text in query and form, as they are in JSON. RefusedError for `result: "fail"`.
        """
        path = f"/{root}/tlim/{operation}"
        if form == "json":
            return await self.call("POST", path, json=fields)
        texts = {
            name: value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            for name, value in fields.items()
        }
        if form == "get":
            return await self.call("GET", path, params=texts)
        return await self.call("POST", path, data=texts)

    # --- sessions: /v1 -------------------------------------------------------------------------------------------

    async def add_session(self, subscribers: Sequence[str], session_type: int = 1) -> Json:
        """Create a session with these users and oneself."""
        return await self.call(
            "POST", "/v1/sessions", json={"session_type": session_type, "subscribers": list(subscribers)}
        )

    async def change_session(
        self,
        session_id: str,
        *,
        session_name: str | None = None,
        add: Sequence[str] = (),
        remove: Sequence[str] = (),
    ) -> Json:
        """Rename a session, add users, remove users, as one step."""
        named = {} if session_name is None else {"session_name": session_name}
        changes = {"add": list(add), "remove": list(remove)}
        return await self.call(
            "PATCH",
            f"/v1/sessions/{quote(session_id, safe='')}",
            json={**named, **{name: users for name, users in changes.items() if users}},
        )

    async def delete_session(self, session_id: str) -> Json:
        """Delete a session one has created."""
        return await self.call("DELETE", f"/v1/sessions/{quote(session_id, safe='')}")

    async def session(self, session_id: str) -> Json:
        """Return one session of one's own."""
        return await self.call("GET", f"/v1/sessions/{quote(session_id, safe='')}")

    async def sessions(self) -> list[Json]:
        """Return all sessions one is in, over all pages."""
        return [item async for item in self._pages("/v1/sessions")]

    # --- files ---------------------------------------------------------------------------------------------------

    async def upload(self, file: Path, *, name: str | None = None, media_type: str | None = None) -> str:
        """Upload a file, streamed from disk, and return its file id."""
        with file.open("rb") as stream:  # httpx reads it chunk by chunk
            part = (name or file.name, stream, media_type) if media_type else (name or file.name, stream)
            answer = await self.call("POST", "/v1/files", files={"file": part})
        return str(answer["file_id"])

    async def download(self, file_id: str, target: Path) -> Download:
        """Stream a file into `target`, or, when that is a folder, into a new file there under its own name."""
        async with self.open("GET", f"/v1/files/{quote(file_id, safe='')}") as answer:
            if not answer.is_success:
                await answer.aread()
                raise_refusal(answer)
            name = attachment_name(answer.headers) or file_id
            path = _place(target, name)
            size = 0
            with path.open("wb") as out:  # a local disk, one chunk at a time
                async for chunk in answer.aiter_bytes():
                    size += out.write(chunk)
        return Download(path, answer.headers.get("Content-Type", ""), size)

    # --- history ---------------------------------------------------------------------------------------------------

    async def history(self, peer: str, *, limit: int | None = None, after: int | None = None) -> list[Json]:
        """Return up to `limit` messages with `peer`: newest first, or those after a seq, oldest first."""
        path, found = f"/v1/conversations/{quote(peer, safe='')}/messages", list[Json]()
        place: dict[str, int] = {} if after is None else {"after": after}
        while True:
            page = await self.call("GET", path, params={**place, "limit": min(limit or PAGE, PAGE)})
            found += page["messages"]
            if not page["more"] or (limit is not None and len(found) >= limit):
                return found[:limit]
            place = {"before" if after is None else "after": page["next"]}

    async def _pages(self, path: str) -> AsyncIterator[Json]:
        cursor: dict[str, str] = {}
        while True:
            page = await self.call("GET", path, params={"limit": PAGE, **cursor})
            for item in page["items"]:
                yield item
            if not page["next_cursor"]:
                return
            cursor = {"cursor": page["next_cursor"]}


def raise_refusal(answer: httpx.Response) -> None:
    """Raise RefusedError for a problem document (RFC 9457), the specification's `fail`, or any other bad status."""
    is_json = "json" in answer.headers.get("Content-Type", "")
    if answer.is_success and not is_json:
        return
    content = answer.json() if is_json and answer.content else {}
    if not isinstance(content, dict):
        return
    if answer.is_success and content.get("result") != "fail":
        return
    code = _CODES.get(content.get("code") or content.get("result_detail") or "")
    detail = content.get("detail") or content.get("title") or answer.reason_phrase
    raise RefusedError(code, str(detail), field=content.get("field"), status=answer.status_code)


def attachment_name(headers: Mapping[str, str]) -> str:
    """Return the file name of a Content-Disposition header (RFC 6266), without any folder; empty when there is none."""
    header = headers.get("Content-Disposition", "")
    extended = _EXTENDED_NAME.search(header)
    if extended:  # section 4.3: it counts before the plain one, which is for old clients
        name = unquote(extended["name"], extended["charset"] or "utf-8", errors="replace")
    else:
        reader = Message()
        reader["Content-Disposition"] = header
        name = reader.get_filename() or ""
    name = Path(name.replace("\\", "/")).name
    return "" if name in {".", ".."} else "".join(char for char in name if char.isprintable())


def _opened(path: Path, mode: Literal["rb", "wb"]) -> BinaryIO:
    # a local disk, read or written one chunk at a time: not worth a thread
    return path.open(mode)


def _place(target: Path, name: str) -> Path:
    """Return `target`, or, when that is a folder, a path in it that nothing has yet."""
    if not target.is_dir():
        return target
    path, number = target / name, 1
    while path.exists():
        path = (target / name).with_stem(f"{Path(name).stem} ({number})")
        number += 1
    return path
