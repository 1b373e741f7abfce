"""What nobody needs: files that were never sent, and what only a bug or a restored backup leaves behind."""

import re
from collections.abc import AsyncIterator, Collection
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from tlim_runtime.logging import get_logger

from file_api.files import object_key
from file_api.keep import listing
from file_api.keep.listing import Listed
from file_api.keep.storage import ObjectMissing, Storage
from file_api.repository import Repository, Transaction

logger = get_logger(__name__)

GRACE = timedelta(days=1)
"""Younger objects are not judged. A row is committed before its object, but clocks and listings may lag."""

_BATCH = 200
_PAGE = 1_000  # as S3's
_OUR_KEY = re.compile(r"(files|thumbnails)/[0-9a-f]{2}/([0-9a-f]{32})(-[0-9]+)?")


@dataclass
class Report:
    """What reconciliation found. With `remove`, unused blobs and objects without a row are removed.

    A blob without its object has lost its bytes: a backup of the bucket may have them.
    """

    unused_blobs: list[str] = field(default_factory=list)
    objects_without_row: list[str] = field(default_factory=list)
    foreign_objects: list[str] = field(default_factory=list)
    """Their keys do not have our form: they are never removed."""
    blobs_without_object: list[str] = field(default_factory=list)


class Orphans:
    """Collects them. What it discards, `Disposal` removes."""

    def __init__(
        self, transaction: Transaction, storage: Storage, unsent_expiry: timedelta, grace: timedelta = GRACE
    ) -> None:
        self._transaction = transaction
        self._storage = storage
        self._unsent_expiry = unsent_expiry
        self._grace = grace

    async def drop_unsent(self) -> int:
        """Delete some files that no message has carried within `unsent_expiry`.

        Returns how many; 0 when there are no more. Raises Unavailable.
        """
        if not self._unsent_expiry:
            return 0
        now = datetime.now(UTC)
        async with self._transaction() as tables:
            files = await tables.orphans.remove_unsent(now - self._unsent_expiry, _BATCH)
            for blob_id in sorted({file.blob_id for file in files}):
                await tables.discarded.add(await tables.blobs.drop_unused(blob_id), now)
        for file in files:
            logger.info("a file that was never sent was deleted", file_id=file.file_id, owner_id=file.owner_id)
        return len(files)

    async def reconcile(self, *, remove: bool) -> Report:
        """Compare rows and objects; with `remove`, discard what belongs to nobody. Raises Unavailable.

        It reads everything once, in pages, and may run beside the service.
        """
        report = Report()
        report.unused_blobs = [blob_id async for blob_id in self._unused_blobs(remove=remove)]
        last = ""
        async for page in listing.objects(self._storage, "files/"):
            await self._judge(page, report, remove=remove)
            ids = [matched[2] for item in page if (matched := _OUR_KEY.fullmatch(item.key))]
            if ids:
                report.blobs_without_object += await self._missing(last, ids[-1], ids)
                last = ids[-1]
        report.blobs_without_object += await self._missing(last, None, [])
        async for page in listing.objects(self._storage, "thumbnails/"):
            await self._judge(page, report, remove=remove)
        async for page in listing.unfinished(self._storage):
            await self._judge(page, report, remove=remove)
        return report

    async def _unused_blobs(self, *, remove: bool) -> AsyncIterator[str]:
        last = ""
        while True:
            async with self._transaction() as tables:
                page = await tables.orphans.unused_blobs(last, _BATCH)
            for blob_id in page:
                yield blob_id
                if remove:
                    async with self._transaction() as tables:
                        await tables.discarded.add(await tables.blobs.drop_unused(blob_id), datetime.now(UTC))
            if not page:
                return
            last = page[-1]

    async def _judge(self, page: list[Listed], report: Report, *, remove: bool) -> None:
        """Find the objects of a page of S3's listing that have no row in any table."""
        keys = [item.key for item in page if item.at < datetime.now(UTC) - self._grace]
        report.foreign_objects += [key for key in keys if not _OUR_KEY.fullmatch(key)]
        async with self._transaction() as tables:
            unowned = await _unowned(tables, [key for key in keys if _OUR_KEY.fullmatch(key)])
            report.objects_without_row += unowned
            if remove:
                await tables.discarded.add(unowned, datetime.now(UTC))

    async def _missing(self, after: str, upto: str | None, listed: list[str]) -> list[str]:
        there, missing = set(listed), []
        while True:
            async with self._transaction() as tables:
                page = await tables.orphans.blobs_between(after, upto, _PAGE)
            missing += [blob_id for blob_id in page if blob_id not in there and await self._is_missing(blob_id)]
            if len(page) < _PAGE:
                return missing
            after = page[-1]

    async def _is_missing(self, blob_id: str) -> bool:
        try:
            await (await self._storage.get(object_key(blob_id))).aclose()
        except ObjectMissing:
            async with self._transaction() as tables:  # it may have been deleted meanwhile
                return await tables.blobs.exists(blob_id)
        return False  # it was not yet there when the page was listed


async def _unowned(tables: Repository, keys: Collection[str]) -> list[str]:
    ids = {key: key.rpartition("/")[2].partition("-")[0] for key in keys}
    files = {key for key in keys if key.startswith("files/")}
    known = await tables.orphans.with_bytes([ids[key] for key in files])
    pictured = await tables.orphans.with_thumbnails([ids[key] for key in keys if key not in files])
    discarded = await tables.orphans.discarded(keys)
    return [key for key in keys if key not in discarded and ids[key] not in (known if key in files else pictured)]
