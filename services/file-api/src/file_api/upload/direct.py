"""The rules of direct uploads: clients put the bytes into S3, and we read them there before they become a file.

Each is a multipart upload in S3, also when it has one part only. Nothing can be put into it once its parts are joined.
So a URL that is still valid cannot change a file that was measured.
"""

import asyncio
from collections.abc import Iterable, Mapping
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from tlim_protocol.errors import ErrorCode, TlimError
from tlim_runtime.errors import TooManyRequests
from tlim_runtime.outages import Unavailable

from file_api.errors import UploadTooSlow
from file_api.files import DirectUpload, Received, StoredFile, is_file_id, new_file_id, object_key
from file_api.keep.disposal import SETTLED, Disposal
from file_api.keep.presign import Presigner, SignedUrl
from file_api.keep.storage import ObjectMissing, Storage
from file_api.media.names import safe_name
from file_api.media.types import concrete, media_type_of
from file_api.repository import Repository, Transaction
from file_api.service import FileService
from file_api.shared import SharedWork
from file_api.upload.admission import Admission
from file_api.upload.intake import UploadMeter, too_large
from file_api.upload.parts import Part, PartStorage

SINGLE_BYTES = 16 * 1024 * 1024
"""Up to this size an upload has one part. After a failure the client sends it again as a whole."""

PART_BYTES = 8 * 1024 * 1024
"""The least size of a part of larger files: half a minute at 2 Mbit/s. S3 takes no less than 5 MiB."""

MAX_PARTS = 1000
"""Larger files have larger parts, so that one page of S3's listing shows all."""

_MIB = 1024 * 1024

_RETRY_AFTER_S = 60
"""A client with too many open uploads has to complete or abort some first."""


class Declared(NamedTuple):
    """A client's declaration of the file that it is going to send; `sha256` in hex."""

    size: int
    name: str | None = None
    media_type: str | None = None
    sha256: str | None = None


class PartUrl(NamedTuple):
    """The signed URL for the PUT of one part, with exactly `size` bytes."""

    number: int
    size: int
    signed: SignedUrl


class DirectUploads:
    """Begins, shows, completes and aborts direct uploads, each for its owner only."""

    def __init__(
        self,
        transaction: Transaction,
        storage: Storage,
        presigner: Presigner,
        files: FileService,
        disposal: Disposal,
        *,
        admission: Admission,
        open_per_owner: int,
        expiry: timedelta,
        url_lifetime: timedelta,
        completion_timeout: timedelta,
    ) -> None:
        self._transaction = transaction
        self._storage = storage
        self._parts = PartStorage(storage)
        self._presigner = presigner
        self._files = files
        self._disposal = disposal
        self._admission = admission
        self._open_per_owner = open_per_owner
        self._expiry = expiry
        self._url_lifetime = url_lifetime
        self._timeout = completion_timeout.total_seconds()
        self._completing: SharedWork[StoredFile] = SharedWork("complete")

    async def begin(self, owner_id: str, declared: Declared) -> DirectUpload:
        """Begin an upload. Raises PayloadTooLarge, QuotaExceeded, TooManyRequests, Unavailable."""
        if declared.size > self._files.max_upload_bytes:
            raise too_large(self._files.max_upload_bytes)
        upload_id, now = new_file_id(), datetime.now(UTC)
        upload = DirectUpload(
            upload_id,
            owner_id,
            declared.size,
            safe_name(declared.name),
            concrete(declared.media_type),
            declared.sha256,
            part_bytes_of(declared.size),
            "",
            now + self._expiry,
        )

        async def note(tables: Repository) -> None:
            # Under the owner's lock: uploads that begin at the same time cannot exceed the limit together.
            if await tables.direct.count(owner_id, now) >= self._open_per_owner:
                detail = f"at most {self._open_per_owner} of your uploads may be open: complete or abort some"
                raise TooManyRequests(detail, retry_after=_RETRY_AFTER_S)
            await tables.direct.begin(upload, now)

        await self._admission.begin(owner_id, upload.size, note)
        try:
            s3_upload_id = await self._parts.begin(object_key(upload_id))
            async with self._transaction() as tables:
                opened = await tables.direct.open(upload_id, s3_upload_id)
        except Unavailable:
            await self._files.give_up(upload_id, after=SETTLED)  # S3 may still begin it after we gave up waiting
            raise
        if not opened:
            raise TlimError(ErrorCode.UNAVAILABLE, "the upload was aborted before it could begin")
        return upload._replace(s3_upload_id=s3_upload_id)

    async def open_uploads(self, owner_id: str, after: str, limit: int) -> list[DirectUpload]:
        """Return up to `limit` uploads of a user, by id, after the id `after`: all that reserve bytes of the quota."""
        async with self._transaction() as tables:
            return await tables.direct.of(owner_id, after, limit, datetime.now(UTC))

    async def find(self, owner_id: str, upload_id: str) -> DirectUpload:
        """Return an upload that can be resumed.

        Raises FILE_UNKNOWN for an upload that is complete, aborted, expired or foreign, or that could not begin in S3.
        """
        upload = await self._find(owner_id, upload_id)
        if not upload.s3_upload_id:
            raise _unknown()
        return upload

    async def _find(self, owner_id: str, upload_id: str) -> DirectUpload:
        upload = None
        if is_file_id(upload_id):
            async with self._transaction() as tables:
                upload = await tables.direct.find(upload_id, datetime.now(UTC))
        if upload is None or upload.owner_id != owner_id:
            raise _unknown()
        return upload

    async def received(self, upload: DirectUpload) -> list[Part]:
        """Return the parts that S3 has, the newest of each number, by number. Raises StorageUnavailable."""
        found = await self._parts.listed(object_key(upload.upload_id), upload.s3_upload_id)
        newest = {part.number: part for part in sorted(found or [], key=lambda part: part.put_at)}
        return sorted(newest.values())

    def urls(self, upload: DirectUpload, numbers: Iterable[int]) -> list[PartUrl]:
        """Return URLs for these parts, valid until the upload expires or `url_lifetime` has passed."""
        lifetime = min(self._url_lifetime, upload.expires_at - datetime.now(UTC))
        key = object_key(upload.upload_id)
        urls = []
        for number in numbers:
            size = upload.part_size(number)
            signed = self._presigner.put_part(key, upload.s3_upload_id, number, size, lifetime)
            urls.append(PartUrl(number, size, signed))
        return urls

    async def complete(self, owner_id: str, upload_id: str, etags: Mapping[int, str]) -> StoredFile:
        """Make a file of an upload, or return the file that was made of it.

        `etags` chooses a part by its number where S3 has several. The work goes on when the caller goes away, and a
        repeated call gets the same result. Raises FIELD_INVALID while parts are missing, and when the bytes do not have
        the declared digest (the upload is gone then); FILE_UNKNOWN; TooManyRequests; Unavailable.
        """
        try:
            upload = await self.find(owner_id, upload_id)
        except TlimError:
            return await self._completed(owner_id, upload_id)
        return await self._completing.do(upload_id, lambda: self._complete_one(upload, etags))

    async def _completed(self, owner_id: str, upload_id: str) -> StoredFile:
        if is_file_id(upload_id):
            async with self._transaction() as tables:
                file = await tables.files.find(upload_id)
            if file is not None and file.owner_id == owner_id:
                return file
        raise _unknown()

    async def _complete_one(self, upload: DirectUpload, etags: Mapping[int, str]) -> StoredFile:
        with self._admission.one_more(upload.owner_id):  # it holds a connection to S3 as long as an upload does
            return await self._complete(upload, etags)

    async def _complete(self, upload: DirectUpload, etags: Mapping[int, str]) -> StoredFile:
        key = object_key(upload.upload_id)
        found = await self._parts.listed(key, upload.s3_upload_id)
        if found is not None:  # otherwise an earlier attempt has joined them
            await self._parts.join(key, upload.s3_upload_id, chosen(upload, found, etags))
        try:
            received = await self.measured(upload)
        except ObjectMissing:  # aborted meanwhile, or completed elsewhere with bytes that were known already
            return await self._completed(upload.owner_id, upload.upload_id)
        if received.size != upload.size or received.sha256 != (upload.sha256 or received.sha256):
            await self._abort(upload)
            detail = "the bytes are not those that were declared; the upload is given up, begin again"
            raise TlimError(ErrorCode.FIELD_INVALID, detail, field="sha256")
        return await self._files.finish(received)

    async def measured(self, upload: DirectUpload) -> Received:
        """Read the bytes of an upload once: size, digest, type. Raises ObjectMissing, StorageUnavailable."""
        intake = UploadMeter(upload.size)
        try:
            async with asyncio.timeout(self._timeout):
                async with aclosing(await self._storage.get(object_key(upload.upload_id))) as data:
                    async for _ in intake.through(data):
                        pass
        except TimeoutError:
            raise UploadTooSlow from None
        media_type = media_type_of(intake.head, upload.media_type, upload.name)
        return Received(upload.upload_id, upload.owner_id, upload.name, media_type, intake.size, intake.sha256)

    async def abort(self, owner_id: str, upload_id: str) -> None:
        """Forget an upload and remove its parts. A later sweep removes what S3 cannot remove now.

        Raises FILE_UNKNOWN for one that is complete, aborted, expired or somebody else's; Unavailable.
        """
        await self._abort(await self._find(owner_id, upload_id))

    async def _abort(self, upload: DirectUpload) -> None:
        key, now = object_key(upload.upload_id), datetime.now(UTC)
        async with self._transaction() as tables:
            if await tables.uploads.end(upload.upload_id, now) is None:
                return
            await tables.discarded.add([key], now if upload.s3_upload_id else now + SETTLED)  # it may still begin
        if upload.s3_upload_id:
            await self._disposal.remove(key)

    async def close(self) -> None:
        """Cancel the completions that run; each can be asked for again."""
        await self._completing.close()


def part_bytes_of(size: int) -> int:
    """Return the size of the parts of a file: all of it up to SINGLE_BYTES, else whole MiB, for at most MAX_PARTS."""
    if size <= SINGLE_BYTES:
        return size
    return max(PART_BYTES, -(-size // (MAX_PARTS * _MIB)) * _MIB)


def chosen(upload: DirectUpload, found: Iterable[Part], etags: Mapping[int, str]) -> list[Part]:
    """Return the parts of the file, by number. Of several with a number, `etags` chooses, else the newest counts.

    Raises FIELD_INVALID naming a part that is missing, or that came twice within one second. S3 tells time in seconds,
    so that we cannot know which of the two is newer.
    """
    candidates: dict[int, list[Part]] = {}
    for part in found:
        wanted = etags.get(part.number, part.etag).strip('"') == part.etag.strip('"')
        if wanted and part.number <= upload.part_count and part.size == upload.part_size(part.number):
            candidates.setdefault(part.number, []).append(part)
    return [_newest(number, candidates.get(number, [])) for number in range(1, upload.part_count + 1)]


def _newest(number: int, parts: list[Part]) -> Part:
    if not parts:
        raise TlimError(ErrorCode.FIELD_INVALID, f"part {number} is missing", field="parts")
    last = max(part.put_at for part in parts)
    newest = {part.etag: part for part in parts if part.put_at == last}
    if len(newest) > 1:
        detail = f"part {number} came several times with different bytes: put it again, or name its ETag"
        raise TlimError(ErrorCode.FIELD_INVALID, detail, field="parts")
    return next(iter(newest.values()))


def _unknown() -> TlimError:
    return TlimError(ErrorCode.FILE_UNKNOWN, "there is no such upload of yours", field="upload_id")
