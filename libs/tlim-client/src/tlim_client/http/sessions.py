"""Sessions: at the specification's addresses and over /v1."""

import json
from collections.abc import Sequence
from typing import Literal
from urllib.parse import quote

from tlim_client.http.gateway import Gateway, Json

Form = Literal["get", "form", "json"]
"""The three ways in which the specification's session endpoints take their parameters."""


class Sessions(Gateway):
    """What a user can do with sessions."""

    async def legacy(self, operation: str, form: Form = "form", *, root: str = "plugin", **fields: object) -> Json:
        """Call `addSession`, `modifySession` or `deleteSession` (docs/wire-protocol.md, "Legacy HTTP").

        In a query or form a list is sent as JSON text; in a JSON body it is a list. Raises RefusedError for
        `result: "fail"`.
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
        return [item async for item in self.pages("/v1/sessions")]
