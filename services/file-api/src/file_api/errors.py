"""The refusals that only file-api has."""

from tlim_protocol.errors import ErrorCode
from tlim_runtime.errors import HttpRefusal, PayloadTooLarge


class UploadTooSlow(HttpRefusal):
    """The bytes did not arrive in time, or came too slowly: 408."""

    status = 408

    def __init__(self) -> None:
        super().__init__(ErrorCode.FIELD_INVALID, "the upload took too long", field="file")


class EncodedPart(HttpRefusal):
    """A form's file has a Content-Encoding: 415, as for a whole body. We would store bytes that no reader can open."""

    status = 415

    def __init__(self) -> None:
        super().__init__(ErrorCode.UNSUPPORTED, "no Content-Encoding is understood", field="Content-Encoding")


class Quarantined(HttpRefusal):
    """The file has not been scanned for viruses yet: 503, to be tried again soon."""

    status = 503

    def __init__(self) -> None:
        super().__init__(ErrorCode.UNAVAILABLE, "the file is being scanned for viruses, try again", field="file_id")

    def headers(self) -> dict[str, str]:
        """Return when to come back: a scan takes about a second, and others may be queued before it."""
        return {"Retry-After": "5"}


class UploadAborted(HttpRefusal):
    """The client went away in the middle of its upload: nobody receives this 400."""

    status = 400

    def __init__(self) -> None:
        super().__init__(ErrorCode.FIELD_INVALID, "the upload was broken off", field="file")


class QuotaExceeded(PayloadTooLarge):
    """The user has no room for it: 413 with the field `quota`."""

    def __init__(self, quota_bytes: int) -> None:
        super().__init__(f"your files may have at most {quota_bytes} bytes altogether: delete some", field="quota")
