"""The process that looks into one file: `python -I -m file_api.worker image|audio [size]`, told nothing else.

People's files meet decoders written in C here: so it has its own process without secrets or network addresses, with
limits of memory and time that the kernel keeps. The file comes on standard input. The answer is one line of JSON, then
the bytes of the thumbnail if a size was given; `{"unsuitable": "why"}` when the file cannot be read.
"""

import io
import json
import resource
import sys
from typing import TYPE_CHECKING

from file_api.inspection import (
    MAX_DURATION_MS,
    MAX_INSPECTED_BYTES,
    MAX_PIXELS,
    MAX_WORKER_BYTES,
    MAX_WORKER_SECONDS,
    Facts,
    Inspected,
    Kind,
    Thumbnail,
    UnsuitableError,
)

if TYPE_CHECKING:
    from PIL import Image

_LIMITS = {
    resource.RLIMIT_AS: (MAX_WORKER_BYTES, MAX_WORKER_BYTES),
    # At the first SIGXCPU, which tells the service that it was this limit; at the second SIGKILL, as of any cause.
    resource.RLIMIT_CPU: (MAX_WORKER_SECONDS, MAX_WORKER_SECONDS + 5),
    resource.RLIMIT_CORE: (0, 0),
    resource.RLIMIT_FSIZE: (0, 0),  # it writes to a pipe and to nothing else
}
_ORIENTATION = 0x0112  # the EXIF tag
_TURNED = frozenset({5, 6, 7, 8})  # its values that swap width and height


def main(arguments: list[str]) -> None:
    """Read the file, answer, end."""
    for limit, most in _LIMITS.items():
        resource.setrlimit(limit, most)
    kind, size = Kind(arguments[0]), int(arguments[1]) if len(arguments) > 1 else None
    thumbnail = b""
    try:
        found = inspect(kind, sys.stdin.buffer.read(MAX_INSPECTED_BYTES), size)
    except UnsuitableError as error:
        answer: dict[str, object] = {"unsuitable": str(error)}
    except MemoryError:
        answer = {"unsuitable": "it needs too much memory"}
    else:
        answer = found.facts._asdict()
        if found.thumbnail is not None:
            answer["media_type"], thumbnail = found.thumbnail.media_type, found.thumbnail.data
    sys.stdout.buffer.write(json.dumps(answer).encode() + b"\n" + thumbnail)
    sys.stdout.buffer.flush()


def inspect(kind: Kind, data: bytes, size: int | None = None) -> Inspected:
    """Return what is found in the bytes of a file, with a thumbnail of at most `size` pixels a side for an image.

    Raises UnsuitableError, MemoryError.
    """
    return _image(data, size) if kind is Kind.IMAGE else Inspected(Facts(duration_ms=_duration_ms(data)))


def _image(data: bytes, size: int | None) -> Inspected:
    # Exactly the formats that are allowed: Pillow would load all its plugins to look for others.
    from PIL import GifImagePlugin, Image, JpegImagePlugin, PngImagePlugin, WebPImagePlugin  # noqa: PLC0415 - only here

    plugins = (JpegImagePlugin.JpegImageFile, PngImagePlugin.PngImageFile, GifImagePlugin.GifImageFile)
    formats = [str(plugin.format) for plugin in (*plugins, WebPImagePlugin.WebPImageFile)]
    Image.MAX_IMAGE_PIXELS = None  # checked below, with one limit instead of a warning and an error
    try:
        with Image.open(io.BytesIO(data), formats=formats) as image:
            width, height = _bounded(image.size)
            turned = image.getexif().get(_ORIENTATION) in _TURNED
            facts = Facts(*((height, width) if turned else (width, height)))
            return Inspected(facts, None if size is None else _thumbnail(image, size))
    except (UnsuitableError, MemoryError):
        raise
    except Exception as error:
        raise UnsuitableError("it cannot be read as an image") from error  # decoders raise anything for damaged files


def _bounded(size: tuple[int, int]) -> tuple[int, int]:
    if size[0] * size[1] > MAX_PIXELS:
        raise UnsuitableError(f"it has more than {MAX_PIXELS} pixels")
    return size


def _thumbnail(image: "Image.Image", size: int) -> Thumbnail:
    from PIL import Image, ImageOps  # noqa: PLC0415 - see above

    image.draft("RGB", (2 * size, 2 * size))  # a JPEG is decoded at a fraction of its size
    transparent = image.mode in {"LA", "PA", "RGBA", "RGBa"} or "transparency" in image.info
    mode, form = ("RGBA", "PNG") if transparent else ("RGB", "JPEG")
    small = image if image.mode == mode else image.convert(mode)
    small.thumbnail((size, size), Image.Resampling.LANCZOS, reducing_gap=2.0)
    ImageOps.exif_transpose(small, in_place=True)
    bare = Image.new(mode, small.size)
    bare.paste(small)  # pixels only: no EXIF with the place where it was taken, no comments, no colour profile
    out = io.BytesIO()
    bare.save(out, form, quality=80, optimize=True)
    return Thumbnail(out.getvalue(), f"image/{form.lower()}")


def _duration_ms(data: bytes) -> int:
    from tinytag import TinyTag, TinyTagException  # noqa: PLC0415 - only here

    from file_api.amr import amr_duration_ms  # noqa: PLC0415

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
    main(sys.argv[1:])
