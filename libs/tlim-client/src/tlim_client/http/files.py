"""Upload files, and download them under a safe name."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from email.message import Message
from pathlib import Path
from urllib.parse import quote, unquote

from tlim_client.http.gateway import Gateway, raise_refusal

_EXTENDED_NAME = re.compile(r"filename\*\s*=\s*(?P<charset>[\w-]*)'[^']*'(?P<name>[^;\s]+)", re.IGNORECASE)  # RFC 8187


@dataclass(frozen=True, slots=True)
class Download:
    """A downloaded file: its path, its media type, its size in bytes."""

    path: Path
    media_type: str
    size: int


class Files(Gateway):
    """What a user may do with files."""

    async def upload(self, file: Path, *, name: str | None = None, media_type: str | None = None) -> str:
        """Upload a file, streamed from disk, and return its file id."""
        with file.open("rb") as stream:  # httpx reads it chunk by chunk
            part = (name or file.name, stream, media_type) if media_type else (name or file.name, stream)
            answer = await self.call("POST", "/v1/files", files={"file": part})
        return str(answer["file_id"])

    async def download(self, file_id: str, target: Path) -> Download:
        """Stream a file into `target`. If that is a folder, the file gets its own name there, and overwrites nothing.

        A download that breaks off leaves no new file behind: it would look complete.
        """
        async with self.open("GET", f"/v1/files/{quote(file_id, safe='')}") as answer:
            if not answer.is_success:
                await answer.aread()
                raise_refusal(answer)
            name = attachment_name(answer.headers) or file_id
            path = _place(target, name)
            was_there, size = path.exists(), 0
            try:
                with path.open("wb") as out:  # a local disk, one chunk at a time
                    async for chunk in answer.aiter_bytes():
                        size += out.write(chunk)
            except BaseException:
                if not was_there:
                    path.unlink(missing_ok=True)
                raise
        return Download(path, answer.headers.get("Content-Type", ""), size)


def attachment_name(headers: Mapping[str, str]) -> str:
    """Return the file name of a Content-Disposition header (RFC 6266), without any folder; empty when there is none."""
    header = headers.get("Content-Disposition", "")
    extended = _EXTENDED_NAME.search(header)
    if extended:  # section 4.3: it is preferred to the plain name, which is for old clients
        name = unquote(extended["name"], extended["charset"] or "utf-8", errors="replace")
    else:
        reader = Message()
        reader["Content-Disposition"] = header
        name = reader.get_filename() or ""
    name = Path(name.replace("\\", "/")).name
    return "" if name in {".", ".."} else "".join(char for char in name if char.isprintable())


def _place(target: Path, name: str) -> Path:
    """Return `target`. If that is a folder, return a path in it that is not taken yet."""
    if not target.is_dir():
        return target
    path, number = target / name, 1
    while path.exists():
        path = (target / name).with_stem(f"{Path(name).stem} ({number})")
        number += 1
    return path
