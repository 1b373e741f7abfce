"""A tlim client over HTTP, through the gateway: tokens, users, sessions, files and stored messages."""

import asyncio
from pathlib import Path
from urllib.parse import quote

from tlim_client.http.direct import DirectFiles
from tlim_client.http.files import Download, Files, attachment_name
from tlim_client.http.gateway import Gateway, Json, Parts, raise_refusal
from tlim_client.http.reading import Reading
from tlim_client.http.sessions import Form, Sessions

__all__ = ["Download", "Form", "Gateway", "HttpClient", "Json", "Parts", "attachment_name", "raise_refusal"]

IMPORT_TIMEOUT = 600.0
"""The time-out of an import, in seconds. An import may make 5,000 XMPP accounts, and each password is hashed slowly on
purpose."""


class HttpClient(Sessions, Files, DirectFiles, Reading):
    """One user (or nobody, without `token`) at the gateway; every refusal is a RefusedError with its code."""

    async def log_in(self, user: str, password: str) -> Json:
        """Exchange XMPP user and password for a token, keep it, and return the answer."""
        answer = await self.call("POST", "/v1/tokens", json={"username": user, "password": password})
        self.token = answer["access_token"]
        return answer

    async def put_user(self, user: str, name: str | None = None) -> Json:
        """Create or rename a user of the directory; needs the admin scope."""
        return await self.call("PUT", f"/v1/users/{quote(user, safe='')}", json={"name": name or user})

    async def import_users(self, file: Path, media_type: str, *, reset_passwords: bool = False) -> Json:
        """Import a file of users, `text/csv` or `application/json`, and return the report; needs the admin scope."""
        return await self.call(
            "POST",
            "/v1/users/import",
            content=await asyncio.to_thread(file.read_bytes),
            headers={"Content-Type": media_type},
            params={"reset_passwords": "true" if reset_passwords else "false"},
            timeout=IMPORT_TIMEOUT,
        )
