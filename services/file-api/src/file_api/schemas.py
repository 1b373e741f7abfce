"""The answers of file-api's endpoints."""

from datetime import datetime
from typing import Literal, Self

from pydantic import BaseModel, Field

from file_api.files import Scan, StoredFile


class FileRead(BaseModel):
    """A stored file."""

    file_id: str
    name: str = Field(description="as its sender called it, made safe; empty without one")
    media_type: str = Field(description="from the content, else from what the sender said")
    size: int = Field(description="bytes")
    sha256: str = Field(description="hex; also the ETag of the content")
    owner: str = Field(description="user id of the uploader")
    stored_at: datetime
    width: int | None = Field(
        default=None, description="of an image as it is to be seen, in pixels; null: not known yet"
    )
    height: int | None = Field(default=None, description="likewise")
    duration_ms: int | None = Field(default=None, description="of a recording; null: not known yet, or no recording")

    scan: Scan = Field(
        description="for viruses; `waiting`: its bytes can be read soon, `infected`: they were removed,"
        " `skipped`: it was too large, or there was no scanner"
    )

    @classmethod
    def of(cls, file: StoredFile) -> Self:
        """Return the answer for a file."""
        return cls(
            file_id=file.file_id,
            name=file.name,
            media_type=file.media_type,
            size=file.size,
            sha256=file.sha256,
            owner=file.owner_id,
            stored_at=file.stored_at,
            width=file.blob.width,
            height=file.blob.height,
            duration_ms=file.blob.duration_ms,
            scan=Scan(file.blob.scan),
        )


class UsageRead(BaseModel):
    """What the caller has, and the quota."""

    files: int
    stored_bytes: int = Field(description="of the caller's files; the same bytes uploaded twice count twice")
    reserved_bytes: int = Field(description="by uploads that are running")
    quota_bytes: int = Field(description="stored and reserved bytes may be this many")


class LegacyFileId(BaseModel):
    """The specification's answer to an upload, for clients that accept JSON."""

    file_id: str = Field(serialization_alias="fileId")


class LegacyRefusal(BaseModel):
    """The specification's answer to what is refused."""

    result: Literal["fail"]
    result_detail: str = Field(pattern="^error-[0-9]{3}$")
    detail: str
