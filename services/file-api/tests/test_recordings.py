"""What is found in recordings; in this process, without the limits of a worker."""

import io
import struct
import wave
from pathlib import Path

import pytest
from file_api.inspect.inspection import Facts, UnsuitableError
from file_api.inspect.recordings import inspect

SAMPLES = Path(__file__).parent / "samples"  # a tone of 440 Hz
TONE = (SAMPLES / "tone.m4a").read_bytes()


def test_a_wave_file_tells_its_duration() -> None:
    out = io.BytesIO()
    with wave.open(out, "wb") as recording:
        recording.setnchannels(1)
        recording.setsampwidth(2)
        recording.setframerate(8000)
        recording.writeframes(bytes(2 * 12_000))
    assert inspect(out.getvalue()).facts == Facts(duration_ms=1500)


def test_an_amr_file_tells_its_duration() -> None:
    assert inspect(b"#!AMR\n" + 50 * (b"\x3c" + bytes(31))).facts.duration_ms == 1000


def test_an_mp3_file_tells_its_duration() -> None:
    frame = b"\xff\xfb\x90\x00".ljust(417, b"\0")  # MPEG 1 layer III, 128 kbit/s, 44.1 kHz: 1,152 samples
    milliseconds = inspect(100 * frame).facts.duration_ms
    assert milliseconds == pytest.approx(100 * 1152 / 44.1, rel=0.02)


@pytest.mark.parametrize(
    "title", [b"\xff\xfe\xff\xff\xfe\xff", b"\xff\xfe\x00\xd8a\0"], ids=["no character", "half a pair"]
)
def test_a_title_that_no_text_can_hold_is_the_fault_of_the_file(title: bytes) -> None:
    frame = b"TIT2" + struct.pack(">IH", len(title) + 1, 0) + b"\x01" + title
    tag = b"ID3\x03\0\0" + bytes([0, 0, 0, len(frame)]) + frame
    with pytest.raises(UnsuitableError):
        inspect(tag + 100 * b"\xff\xfb\x90\x00".ljust(417, b"\0"))


def test_an_ogg_file_with_opus_tells_its_duration() -> None:
    head = b"OpusHead" + struct.pack("<BBHIHB", 1, 1, 0, 48_000, 0, 0)
    tags = b"OpusTags" + struct.pack("<I", 0) + struct.pack("<I", 0)
    pages = ((2, 0, head), (0, 0, tags), (4, 96_000, bytes(100)))
    data = b"".join(ogg_page(number, *page) for number, page in enumerate(pages))
    assert inspect(data).facts.duration_ms == 2000


def test_raw_aac_is_measured_to_its_end() -> None:
    tone = (SAMPLES / "tone.aac").read_bytes()  # nine frames of 1,024 samples at 8 kHz
    assert inspect(50 * tone).facts.duration_ms == 50 * 9 * 128


def test_webm_that_a_browser_has_recorded_tells_its_duration() -> None:
    # no Duration, and neither Segment nor Cluster knows its size: they were begun before the end was known
    def element(identity: str, data: bytes) -> bytes:
        return bytes.fromhex(identity) + struct.pack(">Q", 1 << 56 | len(data)) + data

    kind = element("1a45dfa3", element("4282", b"webm"))
    track = element("d7", b"\1") + element("73c5", b"\1") + element("83", b"\2") + element("86", b"A_OPUS")
    tracks = element("1654ae6b", element("ae", track))
    info = element("1549a966", element("2ad7b1", (1_000_000).to_bytes(3)))
    unknown = "01ffffffffffffff"
    clusters = b"".join(
        bytes.fromhex("1f43b675" + unknown)
        + element("e7", start.to_bytes(4))
        + b"".join(element("a3", b"\x81" + struct.pack(">hB", at, 0x80) + b"opus") for at in range(0, 1000, 20))
        for start in range(0, 7000, 1000)
    )
    recording = kind + bytes.fromhex("18538067" + unknown) + info + tracks + clusters
    assert inspect(recording).facts.duration_ms == 7000
    assert inspect(recording[:-3]).facts.duration_ms == 7000  # cut short


@pytest.mark.parametrize("data", [b"", b"#!AMR\n", b"RIFF\0\0\0\0WAVE", b"ID3" + bytes(100), b"no sound"])
def test_what_has_no_duration_is_refused(data: bytes) -> None:
    with pytest.raises(UnsuitableError):
        inspect(data)


def test_mp4_tells_its_duration() -> None:
    assert inspect(TONE).facts.duration_ms == 300


@pytest.mark.parametrize("seconds", [40 * 24 * 3600, 2**32 - 2])
def test_a_duration_that_is_nonsense_is_refused(seconds: int) -> None:
    ticks = struct.pack(">II", 1000, 300)  # of the movie: so many a second, and its duration; edits repeat the latter
    assert ticks in TONE
    nonsense = TONE.replace(ticks, struct.pack(">II", 1, 300)).replace(ticks[4:], struct.pack(">I", seconds))
    with pytest.raises(UnsuitableError, match="30 days"):
        inspect(nonsense)


def ogg_page(number: int, kind: int, position: int, packet: bytes) -> bytes:
    def page(checksum: int) -> bytes:
        return struct.pack("<4sBBqIIIB", b"OggS", 0, kind, position, 1, number, checksum, 1) + bytes([len(packet)])

    return page(_ogg_checksum(page(0) + packet)) + packet


def _ogg_checksum(data: bytes) -> int:
    checksum = 0
    for byte in data:
        checksum ^= byte << 24
        for _ in range(8):
            checksum = (checksum << 1 ^ (0x04C11DB7 if checksum & 0x80000000 else 0)) & 0xFFFFFFFF
    return checksum
