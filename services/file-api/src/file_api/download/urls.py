"""Downloads that go past the service: a signed URL of the content, for users with the right to read the file."""

from collections.abc import Awaitable, Callable
from datetime import timedelta

from file_api.files import StoredFile
from file_api.keep.presign import Presigner, SignedUrl
from file_api.media.names import attachment


class DownloadUrls:
    """Signs URLs of files. `announce` notes that a user downloads a file."""

    def __init__(
        self,
        presigner: Presigner,
        announce: Callable[[StoredFile, str], Awaitable[None]],
        lifetime: timedelta,
    ) -> None:
        self._presigner = presigner
        self._announce = announce
        self._lifetime = lifetime

    async def of(self, file: StoredFile, user_id: str) -> SignedUrl:
        """Return where a user who may read the file can download it, as an attachment under its name and type.

        The download is announced now, because S3 does not tell us when it happens. Raises Unavailable.
        """
        await self._announce(file, user_id)
        disposition = attachment(file.name, file.file_id)
        return self._presigner.get(
            file.blob.object_key, media_type=file.media_type, disposition=disposition, lifetime=self._lifetime
        )
