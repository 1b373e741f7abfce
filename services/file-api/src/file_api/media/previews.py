"""What is shown of files before they are opened: thumbnails, width and height of images, duration of recordings.

A thumbnail is made when it is first asked for, and kept. The facts are found out soon after each upload.
"""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from datetime import UTC, datetime, timedelta

from tlim_protocol.errors import ErrorCode, TlimError
from tlim_runtime.logging import get_logger
from tlim_runtime.outages import Unavailable

from file_api.files import Blob, StoredFile, thumbnail_key
from file_api.inspect.inspection import (
    MAX_INSPECTED_BYTES,
    MAX_PIXELS,
    Facts,
    Inspected,
    Kind,
    Thumbnail,
    ThumbnailSize,
    UnsuitableError,
    kind_of,
)
from file_api.inspect.inspector import Inspector, WorkerLost
from file_api.keep.storage import ObjectMissing, Storage
from file_api.repository import Transaction
from file_api.repository.facts import Unexamined
from file_api.shared import SharedWork

logger = get_logger(__name__)

_LEASE = timedelta(minutes=5)
"""The time that a process has to look into a blob: ten times what the limits of a worker allow. It is also the first
pause after a lost worker."""

MOST_LOSSES = 11
"""So many workers a blob may cost. The pauses between them grow from 5 minutes to 43 hours, 3.5 days together: longer
than a weekend, so somebody can mend the machine. Then the blob itself is taken for the reason."""


class Previews:
    """The rules of thumbnails and facts."""

    def __init__(self, transaction: Transaction, storage: Storage, inspector: Inspector) -> None:
        self._transaction = transaction
        self._storage = storage
        self._inspector = inspector
        self._making: SharedWork[Thumbnail] = SharedWork("thumbnail")

    async def thumbnail(self, file: StoredFile, size: ThumbnailSize, user_id: str) -> Thumbnail:
        """Return a small picture of an image that this user may read.

        Raises TlimError FIELD_INVALID for what has none: no image, damaged, or over the limits. Unavailable.
        """
        blob = file.blob
        if blob.thumbnail_type is not None:
            try:
                async with aclosing(await self._storage.get(thumbnail_key(blob.blob_id, size))) as data:
                    return Thumbnail(b"".join([chunk async for chunk in data]), blob.thumbnail_type)
            except ObjectMissing:
                pass  # of this size there is none yet
        has_none = blob.thumbnail_failed or (blob.examined and blob.width is None)
        if kind_of(file.media_type) is not Kind.IMAGE or has_none:
            raise _no_thumbnail("the file is not an image that can be shown")
        if blob.size > MAX_INSPECTED_BYTES:
            raise _no_thumbnail(f"the file has more than {MAX_INSPECTED_BYTES} bytes")
        # All members of a group see a picture at once: a worker for each member would keep other users waiting.
        return await self._making.do((blob.blob_id, size.value), lambda: self._make(blob, size, user_id))

    async def close(self) -> None:
        """Cancel the thumbnails that are being made."""
        await self._making.close()

    async def _make(self, blob: Blob, size: ThumbnailSize, user_id: str) -> Thumbnail:
        try:
            found = await self._inspect(blob, Kind.IMAGE, size, user_id)
        except UnsuitableError as error:
            async with self._transaction() as tables:
                await tables.facts.note_no_thumbnail(blob.blob_id)
            raise _no_thumbnail(f"{error}; an image may have at most {MAX_PIXELS} pixels") from error
        await self._note(blob, found, size)
        if found.thumbnail is None:
            raise _no_thumbnail("none was made")
        return found.thumbnail

    async def examine_next(self) -> bool:
        """Look into one blob that has not been looked into; False when there is none. Raises Unavailable."""
        now = datetime.now(UTC)
        async with self._transaction() as tables:
            leased = await tables.facts.lease(now, now + _LEASE)
        if leased is None:
            return False
        try:
            await self._note(leased.blob, await self._examined(leased))
        except Unavailable:
            raise
        except Exception:  # otherwise this blob would come again for ever, before all others
            logger.exception("a file could not be looked into", blob_id=leased.blob.blob_id)
            await self._note(leased.blob, Inspected(Facts()))
        return True

    async def _examined(self, leased: Unexamined) -> Inspected:
        kind = kind_of(leased.media_type) if leased.media_type else None
        if kind is not None and leased.blob.size <= MAX_INSPECTED_BYTES:
            try:
                return await self._inspect(leased.blob, kind)
            except UnsuitableError as error:
                logger.info("a file could not be looked into", blob_id=leased.blob.blob_id, reason=str(error))
        return Inspected(Facts())

    async def _inspect(self, blob: Blob, kind: Kind, size: ThumbnailSize | None = None, user_id: str = "") -> Inspected:
        """Have a worker look into a blob. Raises UnsuitableError, Unavailable."""
        try:
            async with aclosing(self._bytes_of(blob)) as data:
                return await self._inspector.inspect(kind, data, size, user_id)
        except WorkerLost as error:
            async with self._transaction() as tables:
                losses = await tables.facts.note_loss(blob.blob_id, datetime.now(UTC), _LEASE)
            logger.exception("a worker was lost over a file", blob_id=blob.blob_id, losses=losses)
            if losses < MOST_LOSSES:
                raise
            raise UnsuitableError("no worker survives it") from error

    async def _bytes_of(self, blob: Blob) -> AsyncGenerator[bytes, None]:
        # Opened with the first byte that is asked for: a request that waits for a worker holds no connection to S3.
        async with aclosing(await self._storage.get(blob.object_key)) as data:
            async for chunk in data:
                yield chunk

    async def _note(self, blob: Blob, found: Inspected, size: ThumbnailSize | None = None) -> None:
        async with self._transaction() as tables:
            there = await tables.facts.note(
                blob.blob_id, found.facts, found.thumbnail.media_type if found.thumbnail else None
            )
            # While the row is locked: a thumbnail never outlives its blob.
            if there and found.thumbnail is not None and size is not None:
                await self._storage.put(thumbnail_key(blob.blob_id, size), _once(found.thumbnail.data))


async def _once(data: bytes) -> AsyncIterator[bytes]:
    yield data


def _no_thumbnail(why: str) -> TlimError:
    return TlimError(ErrorCode.FIELD_INVALID, f"there is no thumbnail: {why}", field="file_id")
