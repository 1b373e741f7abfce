"""The S3 adapter of reconciliation: lists what is in the bucket, page by page, in the order of the keys."""

from collections.abc import AsyncIterator
from datetime import datetime
from typing import NamedTuple

from file_api.keep.storage import Storage, translated


class Listed(NamedTuple):
    """An object, or an unfinished multipart upload, that S3 has since `at`."""

    key: str
    at: datetime


async def objects(storage: Storage, prefix: str) -> AsyncIterator[list[Listed]]:
    """Give the objects below a prefix, up to 1,000 at a time, sorted. Raises StorageUnavailable."""
    pages = storage.client.get_paginator("list_objects_v2").paginate(Bucket=storage.bucket, Prefix=prefix)
    async with translated():
        async for page in pages:
            yield [Listed(item["Key"], item["LastModified"]) for item in page.get("Contents", [])]


async def unfinished(storage: Storage) -> AsyncIterator[list[Listed]]:
    """Give the multipart uploads that were neither joined nor aborted, by the page. Raises StorageUnavailable."""
    pages = storage.client.get_paginator("list_multipart_uploads").paginate(Bucket=storage.bucket)
    async with translated():
        async for page in pages:
            yield [Listed(item["Key"], item["Initiated"]) for item in page.get("Uploads", [])]
