"""Measures a file while its bytes pass by: size, digest, first bytes. It stops the file at its limit."""

import hashlib
from collections.abc import AsyncIterator

from tlim_protocol.errors import ErrorCode, TlimError
from tlim_runtime.errors import HttpRefusal, PayloadTooLarge

from file_api.media.types import HEAD_BYTES


class UploadMeter:
    """Measures one upload; the results are valid after `through` has ended."""

    def __init__(self, max_bytes: int, over: HttpRefusal | None = None) -> None:
        self._max_bytes = max_bytes
        self._over = over or too_large(max_bytes)
        self._digest = hashlib.sha256()
        self.size = 0
        self.head = b""

    @property
    def sha256(self) -> str:
        """The digest of all bytes, in hex."""
        return self._digest.hexdigest()

    async def through(self, data: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """Give the bytes on, unchanged.

        Raises `over`, else PayloadTooLarge, with the first byte over the limit; TlimError FIELD_INVALID for no bytes.
        """
        async for chunk in data:
            self.size += len(chunk)
            if self.size > self._max_bytes:
                raise self._over
            self._digest.update(chunk)
            if len(self.head) < HEAD_BYTES:
                self.head = (self.head + chunk)[:HEAD_BYTES]
            yield chunk
        if self.size == 0:
            raise TlimError(ErrorCode.FIELD_INVALID, "the file is empty", field="file")


def too_large(max_bytes: int) -> PayloadTooLarge:
    """Return the refusal of a file over the limit."""
    return PayloadTooLarge(f"a file may have at most {max_bytes} bytes", field="file")
