"""The rules of file-api: rows and objects never disagree, whatever fails or is killed in between.

An upload's row is committed before its first byte goes to S3. When its last byte has arrived there, one transaction
ends the upload and decides about its object: it becomes a new blob, or it is discarded because the same bytes are kept
already. So every object has a row and every blob has an object. An upload that takes too long belongs to nobody.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from datetime import UTC, datetime, timedelta

from tlim_protocol.errors import ErrorCode, TlimError
from tlim_protocol.events import FileEvent
from tlim_protocol.registry import MsgType
from tlim_runtime.errors import TooManyRequests
from tlim_runtime.logging import get_logger
from tlim_runtime.outages import Unavailable
from tlim_runtime.throttle import Throttle

from file_api.download.ranges import ByteRange
from file_api.errors import QuotaExceeded, UploadTooSlow
from file_api.files import Blob, NewUpload, Received, Scan, StoredFile, Upload, is_file_id, new_file_id, object_key
from file_api.keep.disposal import SETTLED, Disposal
from file_api.keep.storage import Storage
from file_api.media.names import safe_name
from file_api.media.types import media_type_of
from file_api.repository import Transaction
from file_api.shared import SharedWork
from file_api.upload.admission import Admission
from file_api.upload.intake import UploadMeter

logger = get_logger(__name__)

ANNOUNCED_DOWNLOADS = "1/minute"
"""How often a download of one file by one user is announced. The stream of these events keeps the newest GiB: somebody
who asked for the same file again and again would push everybody's events out of it."""


class FileService:
    """Uploads, downloads and deletion.

    New files up to `scan_max_bytes` stay in quarantine until they are scanned; None: there is no scanner. `arrived` is
    called after each new file. `announced` is called after each commit with an event in the outbox; it must not wait
    for the broker.
    """

    def __init__(
        self,
        transaction: Transaction,
        storage: Storage,
        disposal: Disposal,
        admission: Admission,
        announced: Callable[[], Awaitable[object]],
        *,
        max_upload_bytes: int,
        upload_timeout: timedelta,
        pending_expiry: timedelta,
        scan_max_bytes: int | None = None,
        arrived: Callable[[], None] = lambda: None,
    ) -> None:
        self._transaction = transaction
        self._storage = storage
        self._disposal = disposal
        self._admission = admission
        self._announced = announced
        self.max_upload_bytes = max_upload_bytes
        self._upload_timeout = upload_timeout
        self._pending_expiry = pending_expiry
        self._scan_max_bytes = scan_max_bytes
        self._arrived = arrived
        self._downloads = Throttle(ANNOUNCED_DOWNLOADS, "file")
        self._announcing: SharedWork[None] = SharedWork("announce download")

    async def upload(self, owner_id: str, upload: Upload) -> StoredFile:
        """Store a file and announce it.

        Raises FIELD_INVALID for an empty file, PayloadTooLarge over the limit, QuotaExceeded, TooManyRequests,
        Unavailable, or what the data raises. After any of these the reserved bytes are free again and the object is
        removed. When S3 is away, a later sweep removes it. When the database is away, both wait for the upload to
        expire.
        """
        upload_id, now = new_file_id(), _now()
        new = NewUpload(upload_id, owner_id, now, now + self._pending_expiry, upload.at_least)
        room = await self._admission.begin(owner_id, upload.at_least, lambda tables: tables.uploads.begin(new))
        try:
            received = await self._receive(upload_id, owner_id, upload, room)
        except Unavailable:
            await self.give_up(upload_id, after=SETTLED)  # S3 may still carry out a request that we gave up
            raise
        except Exception:
            await self.give_up(upload_id)
            raise
        return await self.finish(received)

    async def _receive(self, upload_id: str, owner_id: str, upload: Upload, room: int) -> Received:
        over = QuotaExceeded(self._admission.quota_bytes) if room < self.max_upload_bytes else None
        intake = UploadMeter(min(room, self.max_upload_bytes), over)
        try:
            async with asyncio.timeout(self._upload_timeout.total_seconds()):
                await self._storage.put(object_key(upload_id), intake.through(upload.data))
        except TimeoutError:
            raise UploadTooSlow from None
        name = safe_name(upload.name)
        media_type = media_type_of(intake.head, upload.media_type, name)
        return Received(upload_id, owner_id, name, media_type, intake.size, intake.sha256)

    async def finish(self, received: Received) -> StoredFile:
        """Make a file of an upload and announce it. Bytes that are kept already are not kept again.

        The returned file looks the same in both cases: it has no facts yet, and is still to be scanned. Raises
        QuotaExceeded, and FIELD_INVALID for bytes in which a virus was found before; both give the upload up. Raises
        UNAVAILABLE when the upload expired meanwhile; Unavailable.
        """
        try:
            file = await self._file_away(received)
        except TlimError:
            await self.give_up(received.upload_id)
            raise
        key = object_key(received.upload_id)
        if file is None:  # swept meanwhile: somebody set pending_expiry below upload_timeout
            await self._disposal.remove(key)
            raise TlimError(ErrorCode.UNAVAILABLE, "the upload took too long and was given up")
        await self._announced()
        self._arrived()
        if file.blob.blob_id != received.upload_id:
            self._disposal.remove_soon(key)  # the answer does not wait: the row in `discarded` is the record
        return file._replace(blob=self._new_blob(received))  # the answer must not tell whether its bytes were known

    async def _file_away(self, received: Received) -> StoredFile | None:
        """Decide in one transaction what becomes of the uploaded object; None when the upload is not known any more.

        Two completions at the same time make one file: the slower call gets the file that the faster call made.
        """
        upload_id, owner_id, name, media_type, size, _ = received
        now = _now()
        async with self._transaction() as tables:
            reserved = await tables.uploads.end(upload_id, now)
            if reserved is None:
                known = await tables.files.find(upload_id)
                # Its blob may outlive the file: others have the same bytes.
                if known is None and not await tables.blobs.exists(upload_id):
                    await tables.discarded.add([object_key(upload_id)], now)
                return known
            await self._admission.settle(tables, owner_id, size, reserved)
            blob = await tables.blobs.keep(self._new_blob(received), now)
            if blob.scan == Scan.INFECTED:
                raise TlimError(ErrorCode.FIELD_INVALID, "there is a virus in the file", field="file")
            if blob.blob_id != upload_id:
                await tables.discarded.add([object_key(upload_id)], now)
            file = StoredFile(upload_id, owner_id, name, media_type, now, blob)
            await tables.files.add(file)
            await tables.announce(_event(MsgType.FILE_UPLOADED, file, owner_id))
        return file

    def _new_blob(self, received: Received) -> Blob:
        unscanned = self._scan_max_bytes is None or received.size > self._scan_max_bytes
        return Blob(received.upload_id, received.sha256, received.size, Scan.SKIPPED if unscanned else Scan.WAITING)

    async def give_up(self, upload_id: str, *, after: timedelta = timedelta(0)) -> None:
        """End an upload without a file: its reserved bytes are free, and its object is removed `after` this time."""
        key = object_key(upload_id)
        try:
            async with self._transaction() as tables:
                now = _now()
                if await tables.uploads.end(upload_id, now) is not None:
                    await tables.discarded.add([key], now + after)
        except Unavailable as error:
            logger.warning("an upload is left to the sweeper", upload_id=upload_id, reason=str(error))
        else:
            if not after:
                await self._disposal.remove(key)

    async def delete(self, file_id: str, owner_id: str) -> None:
        """Delete a file of this owner; its bytes go when no other file has them.

        Raises TlimError FILE_UNKNOWN when the owner has no such file; Unavailable.
        """
        now = _now()
        async with self._transaction() as tables:
            blob_id = await tables.files.remove(file_id, owner_id, now) if is_file_id(file_id) else None
            if blob_id is None:
                raise TlimError(ErrorCode.FILE_UNKNOWN, "you have no such file", field="file_id")
            keys = await tables.blobs.drop_unused(blob_id)
            await tables.discarded.add(keys, now)
        logger.info("a file was deleted by its owner", file_id=file_id, owner_id=owner_id)
        for key in keys:
            await self._disposal.remove(key)

    async def open(self, file: StoredFile, user_id: str, span: ByteRange | None = None) -> AsyncGenerator[bytes, None]:
        """Return the bytes of a file, or of one range, for a user who may read it.

        The download is announced when it begins at the first byte: further ranges belong to the same download. So does
        what the user asks for within a minute. Raises Unavailable. Close the iterator (`aclose`) when it is not read to
        its end.
        """
        data = await self._storage.get(file.blob.object_key, span)
        if span is None or span.start == 0:
            try:
                await self.announce_download(file, user_id)
            except BaseException:
                await data.aclose()
                raise
        return data

    async def announce_download(self, file: StoredFile, user_id: str) -> None:
        """Note that a user downloads a file, unless that was noted within the last minute. Raises Unavailable.

        Downloads at the same time share one note, and its failure: none of them is served without it.
        """
        key = f"{file.file_id} {user_id}"
        await self._announcing.do(key, lambda: self._announce_download(key, file, user_id))

    async def close(self) -> None:
        """Cancel the notes of downloads that are being written; these downloads have not begun."""
        await self._announcing.close()

    async def _announce_download(self, key: str, file: StoredFile, user_id: str) -> None:
        try:
            self._downloads.hit(key)
        except TooManyRequests:
            return
        try:
            async with self._transaction() as tables:
                await tables.announce(_event(MsgType.FILE_DOWNLOADED, file, user_id))
        except BaseException:
            self._downloads.give_back(key)
            raise
        await self._announced()


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
