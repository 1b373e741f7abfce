"""The S3 adapter: put, get, discard and ping in our words, on the subset of S3 that every server has."""

import io
import os
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, cast

import aioboto3
import aiohttp
from aiobotocore.config import AioConfig
from aiobotocore.session import AioSession
from botocore.exceptions import BotoCoreError, ClientError
from tlim_runtime.outages import Unavailable

from file_api.download.ranges import ByteRange
from file_api.keep.botodata import lean_loader

if TYPE_CHECKING:
    from types_aiobotocore_s3.client import S3Client
    from types_aiobotocore_s3.type_defs import CompletedPartTypeDef

PART_BYTES = 8 * 1024 * 1024
"""One part is in memory at a time, in a buffer that is used again for the next. S3's least part size is 5 MiB."""

MAX_PARTS = 10_000
"""S3's bound on the parts of one object."""

MAX_CONNECTIONS = 300
"""More than may be in use at once (see Settings): no request waits for a connection that a slow download holds."""

PROBE = "readiness"
"""The key of the object with which we try whether S3 takes writes again. It stays, and belongs to no file."""

PROBE_BYTES = 64 * 1024
"""More than the last blocks that an S3 server may hold in reserve. Random, because some servers compress."""

_CHUNK_BYTES = 64 * 1024

# The bytes stay signed (SHA-256, 2 ms for a MiB). Over plain HTTP nothing else shows S3 that they changed on the way,
# and everybody who uploads the same bytes gets the one blob.
_CONFIG = AioConfig(
    connect_timeout=2,
    read_timeout=30,
    retries={"mode": "standard", "total_max_attempts": 3},
    max_pool_connections=MAX_CONNECTIONS,
    signature_version="s3v4",
    s3={"addressing_style": "path"},  # not every server resolves bucket.host
    request_checksum_calculation="when_required",  # botocore's new default sends trailers that not every server knows
    response_checksum_validation="when_required",
)


class StorageUnavailable(Unavailable):
    """S3 is away, refuses us, or has lost an object that the database knows."""


class ObjectMissing(StorageUnavailable):
    """There is no such object."""


class Storage:
    """The objects of one bucket; open it with `open_storage`."""

    def __init__(self, client: "S3Client", bucket: str) -> None:
        self.client = client
        self.bucket = bucket
        self._refuses_writes = False

    async def put(self, key: str, data: AsyncIterator[bytes]) -> None:
        """Store what `data` gives out under `key`; one request up to 8 MiB, a multipart upload above.

        Raises what `data` raises, or StorageUnavailable. Then there is no object under the key yet. Parts may remain,
        and a request whose answer was lost may still succeed: `discard` the key.
        """
        buffer = io.BytesIO()
        more = await _fill(buffer, data)
        if not more:
            async with self._writing():
                await self.client.put_object(Bucket=self.bucket, Key=key, Body=buffer)
            return
        async with self._writing():
            upload = await self.client.create_multipart_upload(Bucket=self.bucket, Key=key)
        done: list[CompletedPartTypeDef] = []
        while buffer.getbuffer().nbytes:
            done.append(await self._put_part(key, upload["UploadId"], len(done) + 1, buffer))
            if not more:
                break
            more = await _fill(buffer, data)
        async with self._writing():
            await self.client.complete_multipart_upload(
                Bucket=self.bucket, Key=key, UploadId=upload["UploadId"], MultipartUpload={"Parts": done}
            )

    async def _put_part(self, key: str, upload_id: str, number: int, part: io.BytesIO) -> "CompletedPartTypeDef":
        async with self._writing():
            sent = await self.client.upload_part(
                Bucket=self.bucket, Key=key, UploadId=upload_id, PartNumber=number, Body=part
            )
        return {"PartNumber": number, "ETag": sent["ETag"]}

    async def get(self, key: str, span: ByteRange | None = None) -> AsyncGenerator[bytes, None]:
        """Return the bytes of an object, or of one range of it, in chunks of at most 64 KiB.

        The object is open when this returns. Raises ObjectMissing; StorageUnavailable, also while reading. Close the
        iterator (`aclose`) when it is not read to its end.
        """
        wanted: dict[str, Any] = {} if span is None else {"Range": f"bytes={span.start}-{span.end}"}
        async with translated():
            found = await self.client.get_object(Bucket=self.bucket, Key=key, **wanted)
        opened = _read(cast("aiohttp.ClientResponse", found["Body"]))  # a proxy that passes everything on
        await anext(opened)  # to its first yield: from there on closing the iterator closes the connection
        return opened

    async def discard(self, key: str) -> None:
        """Remove the object and every unfinished upload of it; does nothing where there is none."""
        async with translated():
            unfinished = await self.client.list_multipart_uploads(Bucket=self.bucket, Prefix=key)
            for upload in unfinished.get("Uploads", []):
                if upload.get("Key") == key:
                    await self.client.abort_multipart_upload(Bucket=self.bucket, Key=key, UploadId=upload["UploadId"])
            await self.client.delete_object(Bucket=self.bucket, Key=key)

    async def ping(self) -> None:
        """Ask for the bucket, and write an object if the last write failed; raises StorageUnavailable.

        S3 with a full disk answers everything but writes. Without that object readiness would be green.
        """
        async with translated():
            await self.client.head_bucket(Bucket=self.bucket)
        if self._refuses_writes:
            async with self._writing():
                await self.client.put_object(Bucket=self.bucket, Key=PROBE, Body=os.urandom(PROBE_BYTES))

    @asynccontextmanager
    async def _writing(self) -> AsyncIterator[None]:
        """Do the same as `translated`, and remember for `ping` whether S3 takes writes."""
        try:
            async with translated():
                yield
        except StorageUnavailable:
            self._refuses_writes = True
            raise
        self._refuses_writes = False


@asynccontextmanager
async def open_storage(
    *, endpoint_url: str, bucket: str, region: str, access_key: str, secret_key: str
) -> AsyncIterator[Storage]:
    """Open the S3 client of this process. It connects to nothing yet: `ping` tells when S3 is away."""
    session = AioSession()
    session.register_component("data_loader", lean_loader())
    async with aioboto3.Session(botocore_session=session).client(
        "s3",
        region_name=region,
        endpoint_url=endpoint_url,
        aws_access_key_id=access_key,
        aws_secret_access_key=secret_key,
        config=_CONFIG,
    ) as client:
        yield Storage(client, bucket)


async def _fill(buffer: io.BytesIO, data: AsyncIterator[bytes]) -> bool:
    """Replace the content of `buffer` by the next part; False when `data` has ended with it."""
    buffer.seek(0)
    buffer.truncate()
    more = False
    async for piece in data:
        buffer.write(piece)
        if buffer.tell() >= PART_BYTES:
            more = True
            break
    buffer.seek(0)
    return more


async def _read(body: aiohttp.ClientResponse) -> AsyncGenerator[bytes, None]:
    try:
        yield b""
        async with translated():
            while chunk := await body.content.readany():
                for start in range(0, len(chunk), _CHUNK_BYTES):
                    yield chunk[start : start + _CHUNK_BYTES]
    finally:
        body.close()


@asynccontextmanager
async def translated() -> AsyncIterator[None]:
    """Turn whatever S3 and the way to it raise into StorageUnavailable."""
    try:
        yield
    except ClientError as error:
        kind = ObjectMissing if error.response["Error"]["Code"] in {"NoSuchKey", "404"} else StorageUnavailable
        raise kind(f"S3: {error}") from error
    except (BotoCoreError, aiohttp.ClientError, TimeoutError, OSError) as error:
        raise StorageUnavailable(f"S3: {error}") from error
