"""What is found in recordings; in this process, without the limits of a worker."""

import io
import struct
import wave

import pytest
from file_api.inspect.inspection import Facts, UnsuitableError
from file_api.inspect.recordings import inspect


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


def test_an_ogg_file_with_opus_tells_its_duration() -> None:
    head = b"OpusHead" + struct.pack("<BBHIHB", 1, 1, 0, 48_000, 0, 0)
    tags = b"OpusTags" + struct.pack("<I", 0) + struct.pack("<I", 0)
    pages = ((2, 0, head), (0, 0, tags), (4, 96_000, bytes(100)))
    data = b"".join(ogg_page(number, *page) for number, page in enumerate(pages))
    assert inspect(data).facts.duration_ms == 2000


@pytest.mark.parametrize("data", [b"", b"#!AMR\n", b"RIFF\0\0\0\0WAVE", b"ID3" + bytes(100), b"no sound"])
def test_what_has_no_duration_is_refused(data: bytes) -> None:
    with pytest.raises(UnsuitableError):
        inspect(data)


@pytest.mark.parametrize(("seconds", "told"), [(2, 2000), (2**33, None), (2**63, None)])
def test_a_duration_that_is_nonsense_is_refused(seconds: int, told: int | None) -> None:
    def atom(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", 8 + len(data)) + name + data

    header = atom(b"mvhd", bytes([1, 0, 0, 0]) + bytes(16) + struct.pack(">IQ", 1, seconds) + bytes(80))
    data = atom(b"ftyp", b"mp42\0\0\0\0") + atom(b"moov", header)
    if told is None:
        with pytest.raises(UnsuitableError, match="30 days"):
            inspect(data)
    else:
        assert inspect(data).facts.duration_ms == told


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
