"""The requests and answers of direct uploads and downloads."""

from collections.abc import Sequence
from datetime import datetime
from typing import Self

from pydantic import BaseModel, Field

from file_api.files import DirectUpload
from file_api.keep.presign import SignedUrl
from file_api.upload.direct import Declared, PartUrl
from file_api.upload.parts import Part


class UploadCreate(BaseModel):
    """A file that is going to be uploaded."""

    name: str = Field(max_length=1024)
    size: int = Field(ge=1, le=2**62, description="bytes")
    media_type: str | None = Field(default=None, max_length=255, description="counts where the content does not tell")
    sha256: str | None = Field(
        default=None, pattern="^[0-9a-fA-F]{64}$", description="hex; other bytes than these are refused"
    )

    def declared(self) -> Declared:
        """Return what the rules take."""
        return Declared(self.size, self.name, self.media_type, self.sha256.lower() if self.sha256 else None)


class PartUrlRead(BaseModel):
    """A request that the client makes to S3; it needs no token and may be repeated while the upload is open."""

    number: int
    size: int = Field(description="bytes that the body must have, exactly")
    method: str = "PUT"
    url: str
    headers: dict[str, str] = Field(
        description="to be sent as they are; HTTP libraries and browsers set them themselves"
    )
    expires_at: datetime

    @classmethod
    def of(cls, part: PartUrl) -> Self:
        """Return the answer for a part."""
        return cls(
            number=part.number,
            size=part.size,
            url=part.signed.url,
            headers={"Content-Length": str(part.size)},
            expires_at=part.signed.expires_at,
        )


class PartRead(BaseModel):
    """A part that S3 has."""

    number: int
    size: int
    etag: str


class UploadRead(BaseModel):
    """An upload that is open: what is there, and where the next bytes go."""

    upload_id: str
    file_id: str = Field(description="the id of the file, once the upload is complete")
    name: str
    size: int
    expires_at: datetime = Field(description="what is not complete by then is removed")
    part_size: int = Field(description="bytes of every part but the last")
    part_count: int
    received: list[PartRead] = Field(description="the parts that S3 has")
    single: PartUrlRead | None = Field(description="for a file of one part: where to put it; else null")
    parts: list[PartUrlRead] = Field(description="for several: where to put the first of those that are missing")

    @classmethod
    def of(cls, upload: DirectUpload, received: Sequence[Part], urls: Sequence[PartUrl]) -> Self:
        """Return the answer for an upload; `urls` are the URLs of the missing parts."""
        targets = [PartUrlRead.of(url) for url in urls]
        is_single = upload.part_count == 1
        return cls(
            upload_id=upload.upload_id,
            file_id=upload.upload_id,
            name=upload.name,
            size=upload.size,
            expires_at=upload.expires_at,
            part_size=upload.part_bytes,
            part_count=upload.part_count,
            received=[PartRead(number=part.number, size=part.size, etag=part.etag) for part in received],
            single=targets[0] if is_single and targets else None,
            parts=[] if is_single else targets,
        )


class UploadSummary(BaseModel):
    """An upload that is open, in a list."""

    upload_id: str
    name: str
    size: int
    expires_at: datetime

    @classmethod
    def of(cls, upload: DirectUpload) -> Self:
        """Return the answer for an upload."""
        return cls(upload_id=upload.upload_id, name=upload.name, size=upload.size, expires_at=upload.expires_at)


class UploadPage(BaseModel):
    """One page of uploads."""

    items: list[UploadSummary]
    next_cursor: str | None


class PartUrls(BaseModel):
    """One page of signed URLs."""

    items: list[PartUrlRead]
    next: int | None = Field(description="`first` of the next page; null after the last part")


class PartChoice(BaseModel):
    """Which bytes of a part are meant."""

    number: int = Field(ge=1, le=10_000)
    etag: str = Field(max_length=128, description="from S3's answer to the PUT")


class UploadComplete(BaseModel):
    """Needed only for parts that were put more than once with different bytes: without it, the newest counts."""

    parts: list[PartChoice] = Field(default=[], max_length=10_000)


class DownloadUrl(BaseModel):
    """Where the content of a file can be fetched from S3, without a token."""

    url: str
    expires_at: datetime

    @classmethod
    def of(cls, signed: SignedUrl) -> Self:
        """Return the answer for a signed URL."""
        return cls(url=signed.url, expires_at=signed.expires_at)
