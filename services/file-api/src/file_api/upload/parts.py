"""The S3 adapter of uploads in parts that clients put themselves: begin, list, join."""

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, NamedTuple

from botocore.exceptions import ClientError

from file_api.keep.storage import MAX_PARTS, Storage, StorageUnavailable, translated

if TYPE_CHECKING:
    from types_aiobotocore_s3.type_defs import CompletedPartTypeDef


class Part(NamedTuple):
    """A part that S3 has: `number` from 1, `size` in bytes, `etag` as S3 writes it, in quotes."""

    number: int
    size: int
    etag: str
    put_at: datetime


class PartStorage:
    """Multipart uploads in one bucket. `Storage.discard` of the key aborts an upload."""

    def __init__(self, storage: Storage) -> None:
        self._client = storage.client
        self._bucket = storage.bucket

    async def begin(self, key: str) -> str:
        """Begin an upload and return S3's id of it. Raises StorageUnavailable."""
        async with translated():
            upload = await self._client.create_multipart_upload(Bucket=self._bucket, Key=key)
        return upload["UploadId"]

    async def listed(self, key: str, s3_upload_id: str) -> list[Part] | None:
        """Return the parts that S3 has; None when the upload is joined or gone. Raises StorageUnavailable.

        Some servers list a part that was put twice with different bytes twice.
        """
        found: list[Part] = []
        pages = self._client.get_paginator("list_parts").paginate(
            Bucket=self._bucket, Key=key, UploadId=s3_upload_id, PaginationConfig={"MaxItems": 2 * MAX_PARTS}
        )
        try:
            async with translated():
                async for page in pages:
                    found += [
                        Part(part["PartNumber"], part["Size"], part["ETag"], part["LastModified"])
                        for part in page.get("Parts", [])
                    ]
        except StorageUnavailable as error:
            if _is_gone(error.__cause__):
                return None
            raise
        return found

    async def join(self, key: str, s3_upload_id: str, parts: Sequence[Part]) -> None:
        """Make one object of parts, given in the order of their numbers. Nothing more can be put into it.

        Does nothing when the upload is joined already, or gone; `Storage.get` tells which. Raises StorageUnavailable.
        """
        numbered: list[CompletedPartTypeDef] = [{"PartNumber": part.number, "ETag": part.etag} for part in parts]
        try:
            async with translated():
                await self._client.complete_multipart_upload(
                    Bucket=self._bucket, Key=key, UploadId=s3_upload_id, MultipartUpload={"Parts": numbered}
                )
        except StorageUnavailable as error:
            if not _is_gone(error.__cause__):
                raise


def _is_gone(error: BaseException | None) -> bool:
    return isinstance(error, ClientError) and error.response["Error"]["Code"] == "NoSuchUpload"
