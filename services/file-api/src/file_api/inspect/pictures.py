"""Finds the width and height of an image as shown, and makes its thumbnail. Runs in a worker (`worker.py`)."""

import io
import struct
import sys
from functools import partial

from PIL import GifImagePlugin, Image, ImageCms, ImageFile, ImageOps, JpegImagePlugin, PngImagePlugin, WebPImagePlugin

from file_api.inspect.inspection import MAX_PIXELS, Facts, Inspected, Thumbnail, UnsuitableError
from file_api.inspect.worker import work

# Exactly the formats that are allowed: Pillow would load all its plugins to look for others.
_PLUGINS = (
    JpegImagePlugin.JpegImageFile,
    PngImagePlugin.PngImageFile,
    GifImagePlugin.GifImageFile,
    WebPImagePlugin.WebPImageFile,
)
_FORMATS = [str(plugin.format) for plugin in _PLUGINS]
_ORIENTATION = 0x0112  # the EXIF tag
_TURNED = frozenset({5, 6, 7, 8})  # its values that swap width and height


def inspect(data: bytes, size: int | None = None) -> Inspected:
    """Return what is found in the bytes of an image, with a thumbnail of at most `size` pixels a side.

    Raises UnsuitableError, MemoryError.
    """
    Image.MAX_IMAGE_PIXELS = None  # checked below, with one limit instead of a warning and an error
    try:
        with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
            width, height = _bounded(image.size)
            orientation = _orientation(image)
            facts = Facts(*((height, width) if orientation in _TURNED else (width, height)))
            # A JPEG without its last bytes is shown as far as it goes, as browsers do.
            ImageFile.LOAD_TRUNCATED_IMAGES = image.format == JpegImagePlugin.JpegImageFile.format
            return Inspected(facts, None if size is None else _thumbnail(image, size, orientation))
    except (UnsuitableError, MemoryError):
        raise
    except Exception as error:
        raise UnsuitableError("it cannot be read as an image") from error  # decoders raise anything for damaged files


def _orientation(image: Image.Image) -> int | None:
    """Return how the camera was held; None for damaged EXIF data: other programs show such pictures too.

    Pillow reads all pixels of a PNG before it gives the EXIF data: an OSError means that the pixels are damaged.
    """
    try:
        orientation: int | None = image.getexif().get(_ORIENTATION)
    except (OSError, SyntaxError, ValueError, TypeError, KeyError, struct.error):
        return None
    return orientation


def _bounded(size: tuple[int, int]) -> tuple[int, int]:
    if size[0] * size[1] > MAX_PIXELS:
        raise UnsuitableError(f"it has more than {MAX_PIXELS} pixels")
    return size


def _thumbnail(image: Image.Image, size: int, orientation: int | None) -> Thumbnail:
    image.draft("RGB", (2 * size, 2 * size))  # a JPEG is decoded at a fraction of its size
    transparent = image.mode in {"LA", "PA", "RGBA", "RGBa"} or "transparency" in image.info
    mode, form = ("RGBA", "PNG") if transparent else ("RGB", "JPEG")
    if image.mode == "I;16":  # `convert` cuts off at 255: all but the darkest greys would become white
        image = image.point(lambda level: level / 256)
    small = image if image.mode in {mode, "CMYK", "L"} else image.convert(mode)
    small.thumbnail((size, size), Image.Resampling.LANCZOS, reducing_gap=2.0)
    small = _in_srgb(small, mode)
    bare = Image.new(mode, small.size)
    bare.paste(small)  # pixels only: no EXIF with the place where it was taken, no comments, no colour profile
    # Only the orientation: Pillow writes the other EXIF data back too, and fails when it is damaged.
    bare.getexif()[_ORIENTATION] = orientation
    ImageOps.exif_transpose(bare, in_place=True)
    out = io.BytesIO()
    bare.save(out, form, quality=80, optimize=True)
    return Thumbnail(out.getvalue(), f"image/{form.lower()}")


def _in_srgb(image: Image.Image, mode: str) -> Image.Image:
    """Return the pixels as `mode` with the colours that the picture's own profile (ICC) means; a thumbnail has none.

    A profile that is damaged, or for another kind of pixels, counts as missing: other programs show such pictures too.
    """
    profile = image.info.get("icc_profile")
    if profile:
        try:
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            converted = ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), outputMode=mode)
        except (ImageCms.PyCMSError, OSError, ValueError):
            pass
        else:
            return converted or image
    return image if image.mode == mode else image.convert(mode)


if __name__ == "__main__":
    work(partial(inspect, size=int(sys.argv[1]) if len(sys.argv) > 1 else None))
