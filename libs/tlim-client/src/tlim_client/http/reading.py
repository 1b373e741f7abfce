"""Reads stored messages: history, sync, the list of conversations, search, and the ledger of a message."""

from collections.abc import Mapping
from urllib.parse import quote

from tlim_client.http.gateway import PAGE, Gateway, Json


class Reading(Gateway):
    """What a user can read of their conversations."""

    async def history(self, peer: str, *, limit: int | None = None, after: int | None = None) -> list[Json]:
        """Return up to `limit` messages with a user or in a session: newest first, or oldest first after a seq."""
        path, back = f"/v1/conversations/{quote(peer, safe='')}/messages", "before" if after is None else "after"
        return await self._messages(path, {} if after is None else {"after": after}, back, limit)

    async def sync(self, after: int = 0, *, limit: int | None = None) -> tuple[list[Json], int]:
        """Return what was addressed to this user after a cursor, in order, and the cursor to go on from.

        The answer holds messages, receipts, recalls and notices: up to `limit` of them, or all without `limit`.
        """
        found: list[Json] = []
        while True:
            left = PAGE if limit is None else min(PAGE, limit - len(found))
            page = await self.call("GET", "/v1/sync", params={"after": after, "limit": left})
            found += page["items"]
            after = page["next"] if page["next"] is not None else after
            if not page["more"] or (limit is not None and len(found) >= limit):
                return found, after

    async def conversations(self, *, limit: int | None = None) -> list[Json]:
        """Return this user's conversations with their unread counts. The one with the newest message comes first."""
        found: list[Json] = []
        async for item in self.pages("/v1/conversations"):
            found.append(item)
            if len(found) == limit:
                break
        return found

    async def search(self, text: str, *, limit: int | None = None, **only: str | int) -> list[Json]:
        """Return messages that contain `text`, newest first. `only` holds other query parameters of /v1/search."""
        return await self._messages("/v1/search", {"q": text, **only}, "before", limit)

    async def message(self, msg_id: str, **which: str) -> Json:
        """Return a message with its ledger: the time when it was stored, and the users that received and read it."""
        return await self.call("GET", f"/v1/messages/{quote(msg_id, safe='')}", params=which)

    async def _messages(self, path: str, asked: Mapping[str, str | int], place: str, limit: int | None) -> list[Json]:
        """Return the items of all pages of messages. `place` is the query parameter that takes a page's `next`."""
        found, question = list[Json](), dict(asked)
        while True:
            page = await self.call("GET", path, params={**question, "limit": min(limit or PAGE, PAGE)})
            found += page["messages"]
            if not page["more"] or (limit is not None and len(found) >= limit):
                return found[:limit]
            question[place] = page["next"]
