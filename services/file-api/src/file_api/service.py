"""The rules of file-api: rows and objects never disagree, whatever fails or is killed in between.

A row is committed as pending before the first byte goes to S3, and as stored after the last one arrived there. So every
object has a row, every stored row has an object, and what is pending for too long belongs to nobody.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from datetime import UTC, datetime, timedelta

from tlim_protocol.errors import ErrorCode, TlimError
from tlim_protocol.events import FileEvent
from tlim_protocol.registry import MsgType
from tlim_runtime.logging import get_logger
from tlim_runtime.outages import Unavailable

from file_api.errors import UploadTooSlow
from file_api.files import StoredFile, Upload, new_file_id, object_key
from file_api.intake import Intake
from file_api.media import media_type_of
from file_api.names import safe_name
from file_api.ranges import ByteRange
from file_api.repository import Transaction
from file_api.storage import Storage

logger = get_logger(__name__)


class FileService:
    """Uploads, downloads and the removal of what was left behind.

    `announced` is called after each commit that put an event into the outbox; it must not wait for the broker.
    """

    def __init__(
        self,
        transaction: Transaction,
        storage: Storage,
        announced: Callable[[], Awaitable[object]],
        *,
        max_upload_bytes: int,
        upload_timeout: timedelta,
        pending_expiry: timedelta,
    ) -> None:
        self._transaction = transaction
        self._storage = storage
        self._announced = announced
        self.max_upload_bytes = max_upload_bytes
        self._upload_timeout = upload_timeout
        self._pending_expiry = pending_expiry

    async def upload(self, owner_id: str, upload: Upload) -> StoredFile:
        """Store a file and announce it.

        Raises FIELD_INVALID for an empty file, PayloadTooLarge over the limit, Unavailable, or what the data raises;
        then neither row nor object remains, at once or, where S3 or the database is away, after the next sweep.
        """
        file_id = new_file_id()
        async with self._transaction() as files:
            await files.add_pending(file_id, owner_id, _now())
        try:
            file = await self._receive(file_id, owner_id, upload)
        except Unavailable:
            # S3 may still be working on a request that we gave up: only later can its object be removed for good.
            raise
        except Exception:
            await self._give_up(file_id)
            raise
        await self._complete(file)
        return file

    async def _receive(self, file_id: str, owner_id: str, upload: Upload) -> StoredFile:
        intake = Intake(self.max_upload_bytes)
        try:
            async with asyncio.timeout(self._upload_timeout.total_seconds()):
                await self._storage.put(object_key(file_id), intake.through(upload.data))
        except TimeoutError:
            raise UploadTooSlow from None
        name = safe_name(upload.name)
        media_type = media_type_of(intake.head, upload.media_type, name)
        return StoredFile(file_id, owner_id, name, media_type, intake.size, intake.sha256, _now())

    async def _complete(self, file: StoredFile) -> None:
        async with self._transaction() as files:
            stored = await files.mark_stored(file)
            if stored:
                await files.announce(_event(MsgType.FILE_UPLOADED, file, file.owner_id))
        if not stored:  # swept meanwhile: somebody set pending_expiry below upload_timeout
            await self._storage.discard(object_key(file.file_id))
            raise TlimError(ErrorCode.UNAVAILABLE, "the upload took too long and was given up")
        await self._announced()

    async def _give_up(self, file_id: str) -> None:
        try:
            async with self._transaction() as files:
                if await files.lock_pending(file_id):
                    await self._storage.discard(object_key(file_id))
                    await files.forget(file_id)
        except Unavailable as error:
            logger.warning("an upload is left to the sweeper", file_id=file_id, reason=str(error))

    async def open(self, file: StoredFile, user_id: str, span: ByteRange | None = None) -> AsyncGenerator[bytes, None]:
        """Return the bytes of a file, or of one range, for a user who may read it.

        The download is announced when it begins at the first byte: further ranges belong to the same download. Raises
        Unavailable. Close the iterator (`aclose`) when it is not read to its end.
        """
        data = await self._storage.get(object_key(file.file_id), span)
        if span is None or span.start == 0:
            try:
                async with self._transaction() as files:
                    await files.announce(_event(MsgType.FILE_DOWNLOADED, file, user_id))
            except BaseException:
                await data.aclose()
                raise
            await self._announced()
        return data

    async def sweep(self) -> int:
        """Remove what uploads of killed processes left behind; returns how many. Several processes may do it at once.

        Raises Unavailable; what was removed before stays removed.
        """
        removed = 0
        while await self._sweep_one(_now() - self._pending_expiry):
            removed += 1
        return removed

    async def _sweep_one(self, before: datetime) -> bool:
        async with self._transaction() as files:
            file_id = await files.lock_abandoned(before)
            if file_id is None:
                return False
            await self._storage.discard(object_key(file_id))
            await files.forget(file_id)
        logger.info("removed an abandoned upload", file_id=file_id)
        return True


def _event(msg_type: MsgType, file: StoredFile, user_id: str) -> FileEvent:
    return FileEvent(
        msg_type=msg_type,
        file_id=file.file_id,
        user_id=user_id,
        size=file.size,
        media_type=file.media_type,
        at=int(_now().timestamp() * 1000),
    )


def _now() -> datetime:
    return datetime.now(UTC)
