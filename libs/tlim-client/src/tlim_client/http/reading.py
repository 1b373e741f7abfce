"""What was said: history, sync, the list of conversations, search, and the ledger of a message."""

from urllib.parse import quote

from tlim_client.http.gateway import PAGE, Gateway, Json


class Reading(Gateway):
    """What a user may read of his conversations."""

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
