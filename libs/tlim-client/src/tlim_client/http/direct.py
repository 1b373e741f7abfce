"""Files directly to and from S3, with signed URLs. Uploads go in parts and can be resumed."""

from pathlib import Path
from urllib.parse import quote

import httpx

from tlim_client.failures import NotReachableError, RefusedError
from tlim_client.http.gateway import Gateway, Json, raise_refusal

PUT_TIMEOUT = 60.0
"""The time-out of a part, in seconds: so long may pass without any progress."""

COMPLETION_TIMEOUT = 600.0
"""The time-out of a completion, in seconds. The server reads the whole file back from its storage before it answers."""


class DirectFiles(Gateway):
    """What a user can do with files if the server gives direct access to its storage."""

    async def upload_direct(self, file: Path, *, name: str | None = None, media_type: str | None = None) -> str:
        """Upload a file in parts and return its file id. To resume after a break, use the next two methods instead."""
        upload = await self.begin_upload(file, name=name, media_type=media_type)
        return await self.resume_upload(upload["upload_id"], file)

    async def begin_upload(self, file: Path, *, name: str | None = None, media_type: str | None = None) -> Json:
        """Begin an upload of a file. Its `upload_id` is enough to go on later, also from another machine."""
        return await self.call("POST", "/v1/uploads", json=_declared(file, name, media_type))

    async def open_uploads(self) -> list[Json]:
        """Return all uploads of one's own that can be resumed, over all pages."""
        return [item async for item in self.pages("/v1/uploads")]

    async def resume_upload(self, upload_id: str, file: Path) -> str:
        """Put the missing parts, one at a time. Then complete the upload and return the file id."""
        path = f"/v1/uploads/{quote(upload_id, safe='')}"
        while targets := _missing(upload := await self.call("GET", path)):
            await _put_in_time(self._http, file, upload["part_size"], targets)
        return str((await self.call("POST", f"{path}/complete", timeout=COMPLETION_TIMEOUT))["file_id"])

    async def abort_upload(self, upload_id: str) -> None:
        """Abort an upload; its parts are removed."""
        await self.call("DELETE", f"/v1/uploads/{quote(upload_id, safe='')}")

    async def download_url(self, file_id: str) -> str:
        """Return where a file can be downloaded for some minutes, without a token."""
        return str((await self.call("GET", f"/v1/files/{quote(file_id, safe='')}/url"))["url"])

    async def thumbnail(self, file_id: str, size: int = 320) -> bytes:
        """Return a small picture of an image: JPEG, or PNG where it is transparent."""
        answer = await self.ask("GET", f"/v1/files/{quote(file_id, safe='')}/thumbnail", params={"size": size})
        raise_refusal(answer)
        return answer.content


def _declared(file: Path, name: str | None, media_type: str | None) -> Json:
    told = {"name": name or file.name, "size": file.stat().st_size}
    return {**told, **({"media_type": media_type} if media_type else {})}


def _missing(upload: Json) -> list[Json]:
    """Return the requests that put the next parts."""
    targets: list[Json] = upload["parts"] if upload["single"] is None or upload["received"] else [upload["single"]]
    return targets


async def _put_in_time(http: httpx.AsyncClient, file: Path, part_size: int, targets: list[Json]) -> None:
    """Put parts until the URL of one has expired, because the parts before it took long.

    The caller then asks for new URLs. The first URL is always new: if it is refused, that is raised.
    """
    for target in targets:
        try:
            await _put(http, file, (target["number"] - 1) * part_size, target)
        except RefusedError as refusal:
            if refusal.status != httpx.codes.FORBIDDEN or target is targets[0]:
                raise
            return


async def _put(http: httpx.AsyncClient, file: Path, start: int, target: Json) -> None:
    with file.open("rb") as source:  # a local disk, one part at a time
        source.seek(start)
        data = source.read(target["size"])
    try:
        answer = await http.request(
            target["method"], target["url"], content=data, headers=target["headers"], timeout=PUT_TIMEOUT
        )
    except httpx.TransportError as error:
        raise NotReachableError(f"the storage does not answer ({error or type(error).__name__})") from error
    if not answer.is_success:
        raise RefusedError(None, f"the storage refused part {target['number']}", status=answer.status_code)
