"""What the worker finds in images and recordings; it runs in this process here, without its limits."""

import io
import struct
import wave
import zlib
from collections.abc import Callable
from typing import Any

import pytest
from file_api.inspection import MAX_PIXELS, Facts, Kind, Thumbnail, UnsuitableError
from file_api.worker import inspect
from PIL import Image

TURN_RIGHT = 6
SECRET = "taken at my home"


def picture(form: str, size: tuple[int, int] = (600, 300), mode: str = "RGB", **options: Any) -> bytes:
    image, out = Image.new(mode, size), io.BytesIO()
    image.paste(Image.new(mode, (size[0] // 2, size[1]), "white"))  # left half white, right half black
    image.save(out, form, **options)
    return out.getvalue()


def photo(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = orientation, SECRET
    return picture("JPEG", exif=exif, comment=SECRET.encode())


def thumbnail(data: bytes, size: int = 128) -> Thumbnail:
    made = inspect(Kind.IMAGE, data, size).thumbnail
    assert made is not None
    return made


def opened(made: Thumbnail) -> Image.Image:
    return Image.open(io.BytesIO(made.data))


class TestImages:
    @pytest.mark.parametrize("form", ["JPEG", "PNG", "GIF", "WEBP"])
    def test_a_thumbnail_is_a_small_jpeg_of_the_same_shape(self, form: str) -> None:
        found = inspect(Kind.IMAGE, picture(form), 128)
        assert found.facts == Facts(600, 300)
        assert found.thumbnail is not None
        assert (found.thumbnail.media_type, opened(found.thumbnail).size) == ("image/jpeg", (128, 64))

    @pytest.mark.parametrize("form", ["PNG", "WEBP"])
    def test_transparency_is_kept(self, form: str) -> None:
        made = thumbnail(picture(form, mode="RGBA"))
        assert (made.media_type, opened(made).mode) == ("image/png", "RGBA")

    @pytest.mark.parametrize("mode", ["1", "L", "P", "LA", "CMYK", "I;16"])
    def test_every_kind_of_pixel_can_be_shown(self, mode: str) -> None:
        out = io.BytesIO()
        Image.new(mode, (200, 100)).save(out, "JPEG" if mode == "CMYK" else "PNG")
        assert opened(thumbnail(out.getvalue())).size == (128, 64)

    def test_a_small_image_is_not_enlarged(self) -> None:
        assert opened(thumbnail(picture("PNG", (20, 10)))).size == (20, 10)

    def test_a_photo_is_turned_as_its_camera_was_held(self) -> None:
        found = inspect(Kind.IMAGE, photo(TURN_RIGHT), 128)
        assert found.facts == Facts(300, 600)
        assert found.thumbnail is not None
        shown = opened(found.thumbnail).convert("L")
        assert shown.size == (64, 128)
        assert (shown.getpixel((32, 5)), shown.getpixel((32, 120))) == (255, 0)  # the left half has become the top

    def test_nothing_but_pixels_is_left(self) -> None:
        assert SECRET.encode() in photo(1)
        made = thumbnail(photo(1))
        assert SECRET.encode() not in made.data
        assert not opened(made).getexif()

    def test_facts_alone_need_no_thumbnail(self) -> None:
        found = inspect(Kind.IMAGE, photo(TURN_RIGHT))
        assert (found.facts, found.thumbnail) == (Facts(300, 600), None)

    @pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
    def test_exif_that_is_nonsense_spoils_nothing(self) -> None:
        assert opened(thumbnail(picture("JPEG", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff"))).size == (128, 64)

    @pytest.mark.parametrize(
        "make",
        [
            lambda: b"",
            lambda: b"no image at all",
            lambda: picture("PNG")[:200],
            lambda: picture("TIFF"),
            lambda: picture("BMP"),
            lambda: picture("ICO", (64, 64)),
            lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n",
        ],
        ids=["empty", "text", "cut short", "TIFF", "BMP", "ICO", "EPS"],
    )
    def test_what_is_damaged_or_of_another_format_is_refused(self, make: Callable[[], bytes]) -> None:
        with pytest.raises(UnsuitableError):
            inspect(Kind.IMAGE, make(), 128)

    def test_a_decompression_bomb_is_refused_before_it_is_decoded(self) -> None:
        def chunk(name: bytes, data: bytes) -> bytes:
            return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

        header = chunk(b"IHDR", struct.pack(">IIBBBBB", 50_000, 50_000, 8, 2, 0, 0, 0))
        bomb = b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(100_000))) + chunk(b"IEND", b"")
        with pytest.raises(UnsuitableError, match=str(MAX_PIXELS)):
            inspect(Kind.IMAGE, bomb, 128)


class TestRecordings:
    def test_a_wave_file_tells_its_duration(self) -> None:
        out = io.BytesIO()
        with wave.open(out, "wb") as recording:
            recording.setnchannels(1)
            recording.setsampwidth(2)
            recording.setframerate(8000)
            recording.writeframes(bytes(2 * 12_000))
        assert inspect(Kind.AUDIO, out.getvalue()).facts == Facts(duration_ms=1500)

    def test_an_amr_file_tells_its_duration(self) -> None:
        assert inspect(Kind.AUDIO, b"#!AMR\n" + 50 * (b"\x3c" + bytes(31))).facts.duration_ms == 1000

    def test_an_mp3_file_tells_its_duration(self) -> None:
        frame = b"\xff\xfb\x90\x00".ljust(417, b"\0")  # MPEG 1 layer III, 128 kbit/s, 44.1 kHz: 1,152 samples
        milliseconds = inspect(Kind.AUDIO, 100 * frame).facts.duration_ms
        assert milliseconds == pytest.approx(100 * 1152 / 44.1, rel=0.02)

    def test_an_ogg_file_with_opus_tells_its_duration(self) -> None:
        head = b"OpusHead" + struct.pack("<BBHIHB", 1, 1, 0, 48_000, 0, 0)
        tags = b"OpusTags" + struct.pack("<I", 0) + struct.pack("<I", 0)
        pages = ((2, 0, head), (0, 0, tags), (4, 96_000, bytes(100)))
        data = b"".join(ogg_page(number, *page) for number, page in enumerate(pages))
        assert inspect(Kind.AUDIO, data).facts.duration_ms == 2000

    @pytest.mark.parametrize("data", [b"", b"#!AMR\n", b"RIFF\0\0\0\0WAVE", b"ID3" + bytes(100), b"no sound"])
    def test_what_has_no_duration_is_refused(self, data: bytes) -> None:
        with pytest.raises(UnsuitableError):
            inspect(Kind.AUDIO, data)

    @pytest.mark.parametrize(("seconds", "told"), [(2, 2000), (2**33, None), (2**63, None)])
    def test_a_duration_that_is_nonsense_is_refused(self, seconds: int, told: int | None) -> None:
        def atom(name: bytes, data: bytes) -> bytes:
            return struct.pack(">I", 8 + len(data)) + name + data

        header = atom(b"mvhd", bytes([1, 0, 0, 0]) + bytes(16) + struct.pack(">IQ", 1, seconds) + bytes(80))
        data = atom(b"ftyp", b"mp42\0\0\0\0") + atom(b"moov", header)
        if told is None:
            with pytest.raises(UnsuitableError, match="30 days"):
                inspect(Kind.AUDIO, data)
        else:
            assert inspect(Kind.AUDIO, data).facts.duration_ms == told


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
