"""Finds the duration of a recording. Runs in a worker (`worker.py`)."""

import io
from xml.etree.ElementTree import ParseError

from pymediainfo import MediaInfo

from file_api.inspect.amr import amr_duration_ms
from file_api.inspect.inspection import MAX_DURATION_MS, Facts, Inspected, UnsuitableError
from file_api.inspect.webm import webm_duration_ms
from file_api.inspect.worker import work

_WHOLE = 1.0
"""The parse speed at which MediaInfo goes through the whole file: otherwise it guesses the length of raw AAC."""

_WEBM = "WebM"


def inspect(data: bytes) -> Inspected:
    """Return the duration that the bytes of a recording tell. Raises UnsuitableError."""
    milliseconds = amr_duration_ms(data) or _told_by_library(data)
    if milliseconds is None or milliseconds <= 0:
        raise UnsuitableError("it does not tell how long it is")
    if milliseconds > MAX_DURATION_MS:
        raise UnsuitableError("it says that it lasts for more than 30 days")
    return Inspected(Facts(duration_ms=milliseconds))


def _told_by_library(data: bytes) -> int | None:
    try:
        media = MediaInfo.parse(io.BytesIO(data), parse_speed=_WHOLE)
    except (ParseError, ValueError) as error:  # the library answers in XML, also when a title cannot stand in XML
        raise UnsuitableError("it cannot be read as a recording") from error
    if not media.audio_tracks and not media.video_tracks:
        raise UnsuitableError("it cannot be read as a recording")
    whole = media.general_tracks[0]
    if whole.duration is None and whole.format == _WEBM:
        return webm_duration_ms(data)
    return None if whole.duration is None else round(float(whole.duration))


if __name__ == "__main__":
    work(inspect)
