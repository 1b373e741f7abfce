"""What is found in a recording: how long it is. Runs in a worker (`worker.py`)."""

import io

from tinytag import TinyTag, TinyTagException

from file_api.inspect.amr import amr_duration_ms
from file_api.inspect.inspection import MAX_DURATION_MS, Facts, Inspected, UnsuitableError
from file_api.inspect.worker import work


def inspect(data: bytes) -> Inspected:
    """Return the duration that the bytes of a recording tell. Raises UnsuitableError."""
    return Inspected(Facts(duration_ms=_duration_ms(data)))


def _duration_ms(data: bytes) -> int:
    milliseconds = amr_duration_ms(data)
    if milliseconds is None:
        try:
            seconds = TinyTag.get(file_obj=io.BytesIO(data), tags=False).duration
        except TinyTagException as error:
            raise UnsuitableError("it cannot be read as audio") from error
        milliseconds = round(seconds * 1000) if seconds else 0
    if milliseconds <= 0:
        raise UnsuitableError("it does not tell how long it is")
    if milliseconds > MAX_DURATION_MS:
        raise UnsuitableError("it says that it lasts for more than 30 days")
    return milliseconds


if __name__ == "__main__":
    work(inspect)
