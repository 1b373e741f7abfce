"""What is found in images; in this process, without the limits of a worker."""

import io
import struct
import zlib
from collections.abc import Callable
from typing import Any

import pytest
from file_api.inspect.inspection import MAX_PIXELS, Facts, Thumbnail, UnsuitableError
from file_api.inspect.pictures import inspect
from PIL import Image, ImageCms
from PIL.PngImagePlugin import PngInfo

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
    made = inspect(data, size).thumbnail
    assert made is not None
    return made


def opened(made: Thumbnail) -> Image.Image:
    return Image.open(io.BytesIO(made.data))


@pytest.mark.parametrize("form", ["JPEG", "PNG", "GIF", "WEBP"])
def test_a_thumbnail_is_a_small_jpeg_of_the_same_shape(form: str) -> None:
    found = inspect(picture(form), 128)
    assert found.facts == Facts(600, 300)
    assert found.thumbnail is not None
    assert (found.thumbnail.media_type, opened(found.thumbnail).size) == ("image/jpeg", (128, 64))


@pytest.mark.parametrize("form", ["PNG", "WEBP"])
def test_transparency_is_kept(form: str) -> None:
    made = thumbnail(picture(form, mode="RGBA"))
    assert (made.media_type, opened(made).mode) == ("image/png", "RGBA")


@pytest.mark.parametrize("mode", ["1", "L", "P", "LA", "CMYK", "I;16"])
def test_every_kind_of_pixel_can_be_shown(mode: str) -> None:
    out = io.BytesIO()
    Image.new(mode, (200, 100)).save(out, "JPEG" if mode == "CMYK" else "PNG")
    assert opened(thumbnail(out.getvalue())).size == (128, 64)


@pytest.mark.parametrize("grey", [0x0000, 0x8000, 0xFFFF])
def test_sixteen_bits_of_grey_keep_their_brightness(grey: int) -> None:
    out = io.BytesIO()
    Image.new("I;16", (200, 100), grey).save(out, "PNG")
    assert opened(thumbnail(out.getvalue())).convert("L").getpixel((64, 32)) == grey >> 8


def colour(image: Image.Image) -> str:
    levels = image.convert("RGB").resize((1, 1)).tobytes()
    return {(True, False): "red", (False, True): "green"}[levels[0] > 240, levels[1] > 240]


def swapped_profile(space: bytes = b"RGB ") -> bytes:
    """An ICC profile in which red and green have changed places."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    names = {bytes(profile[place : place + 4]): place for place in range(132, 132 + 12 * profile[131], 12)}
    red, green = names[b"rXYZ"], names[b"gXYZ"]
    profile[red : red + 4], profile[green : green + 4] = b"gXYZ", b"rXYZ"
    profile[16:20] = space
    return bytes(profile)


@pytest.mark.parametrize(
    ("form", "mode"), [("JPEG", "RGB"), ("PNG", "RGB"), ("PNG", "RGBA"), ("PNG", "P"), ("WEBP", "RGB")]
)
def test_colours_are_those_that_the_profile_means(form: str, mode: str) -> None:
    out = io.BytesIO()
    Image.new("RGB", (200, 100), "red").convert(mode).save(out, form, icc_profile=swapped_profile())
    made = opened(thumbnail(out.getvalue()))
    assert colour(made) == "green"
    assert "icc_profile" not in made.info


@pytest.mark.parametrize("profile", [b"nonsense", swapped_profile(b"GRAY"), swapped_profile()[:200]])
def test_a_profile_that_is_nonsense_counts_as_missing(profile: bytes) -> None:
    out = io.BytesIO()
    Image.new("RGB", (200, 100), "red").save(out, "PNG", icc_profile=profile)
    assert colour(opened(thumbnail(out.getvalue()))) == "red"


def test_a_jpeg_without_its_last_bytes_has_a_thumbnail() -> None:
    data = picture("JPEG")
    assert opened(thumbnail(data[:-100])).size == (128, 64)


def test_a_small_image_is_not_enlarged() -> None:
    assert opened(thumbnail(picture("PNG", (20, 10)))).size == (20, 10)


def test_a_photo_is_turned_as_its_camera_was_held() -> None:
    found = inspect(photo(TURN_RIGHT), 128)
    assert found.facts == Facts(300, 600)
    assert found.thumbnail is not None
    shown = opened(found.thumbnail).convert("L")
    assert shown.size == (64, 128)
    assert (shown.getpixel((32, 5)), shown.getpixel((32, 120))) == (255, 0)  # the left half has become the top


def test_nothing_but_pixels_is_left() -> None:
    assert SECRET.encode() in photo(1)
    made = thumbnail(photo(1))
    assert SECRET.encode() not in made.data
    assert not opened(made).getexif()


def test_facts_alone_need_no_thumbnail() -> None:
    found = inspect(photo(TURN_RIGHT))
    assert (found.facts, found.thumbnail) == (Facts(300, 600), None)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
@pytest.mark.parametrize("exif", [b"MM\0*\xff\xff\xff\xff", b"no TIFF header", b""], ids=["cut short", "text", "empty"])
@pytest.mark.parametrize(("form", "options"), [("JPEG", {}), ("JPEG", {"dpi": (72, 72)}), ("PNG", {}), ("WEBP", {})])
def test_exif_that_is_nonsense_spoils_nothing(form: str, options: dict[str, Any], exif: bytes) -> None:
    data = picture(form, exif=b"Exif\0\0" + exif, **options)
    assert inspect(data).facts == Facts(600, 300)
    assert opened(thumbnail(data)).size == (128, 64)


def test_a_photo_is_turned_whatever_else_its_exif_says() -> None:
    exif = Image.Exif()
    exif[0x0112], exif[0x011A] = TURN_RIGHT, 72.0
    data = exif.tobytes().replace(
        b"\x01\x1a\x00\x05", b"\x01\x1a\x00\x02"
    )  # the resolution: as a text, which it is not
    found = inspect(picture("JPEG", exif=data), 128)
    assert found.facts == Facts(300, 600)
    assert found.thumbnail is not None
    assert opened(found.thumbnail).size == (64, 128)


def test_exif_as_a_text_that_is_nonsense_spoils_nothing() -> None:
    texts = PngInfo()
    texts.add_text("Raw profile type exif", "\nexif\n 4\nno hex digits")
    assert opened(thumbnail(picture("PNG", pnginfo=texts))).size == (128, 64)


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
def test_what_is_damaged_or_of_another_format_is_refused(make: Callable[[], bytes]) -> None:
    with pytest.raises(UnsuitableError):
        inspect(make(), 128)


def test_a_decompression_bomb_is_refused_before_it_is_decoded() -> None:
    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 50_000, 50_000, 8, 2, 0, 0, 0))
    bomb = b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(100_000))) + chunk(b"IEND", b"")
    with pytest.raises(UnsuitableError, match=str(MAX_PIXELS)):
        inspect(bomb, 128)
