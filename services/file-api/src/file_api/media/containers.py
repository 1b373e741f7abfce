"""Container formats: which container the first bytes show, and which media types a sender may claim for its content.

A ZIP file may be an Office document or an Android package, an MP4 file may be a voice message. The bytes decide which
container it is, and so how the file is looked into. For the content we take the sender's word, within `holds`.
"""

import re
from collections.abc import Sequence
from typing import NamedTuple


class Container(NamedTuple):
    """A container format; `media_type` counts where nobody claims one that matches `holds`.

    `is_a_wrapper`: `media_type` names the wrapper only, so that a claim of it says nothing about the content.
    """

    media_type: str
    holds: re.Pattern[str]
    is_a_wrapper: bool = False

    def told(self, claims: Sequence[str]) -> str:
        """Return the first of the claimed media types that this container may have, else its own."""
        known = (claim for claim in claims if self.holds.fullmatch(claim) or claim == self.media_type)
        return next((claim for claim in known if not self.is_a_wrapper or claim != self.media_type), self.media_type)


_OFFICE = r"vnd\.openxmlformats-officedocument\..+"

_ZIP = Container(
    "application/zip",
    re.compile(
        rf"application/({_OFFICE}|vnd\.oasis\.opendocument\..+|vnd\.ms-(excel|word|powerpoint|visio)\..+|.+\+zip|ofd"
        r"|vnd\.android\.package-archive|java-archive|vnd\.ms-xpsdocument|oxps|vnd\.apple\.(pages|numbers|keynote)"
        r"|wps-office\..+|haansofthwpx|vnd\.google-earth\.kmz|vnd\.adobe\.air-application-installer-package.*)"
    ),
    is_a_wrapper=True,
)
_OLE = Container(  # an encrypted Office document of the ZIP kind is one of these
    "application/x-ole-storage",
    re.compile(
        rf"application/({_OFFICE}|msword|vnd\.ms-(excel|powerpoint|outlook|project|works|publisher)|vnd\.visio|x-visio"
        r"|x-msi|x-mspublisher|x-hwp|haansofthwp|wps-office\..+)"
    ),
    is_a_wrapper=True,
)
_HEIF = re.compile(r"image/hei[cf](-sequence)?")
_NOTHING_ELSE = re.compile("(?!)")

_BY_BRAND = {  # ISO/IEC 14496-12 section 4.3; brands are registered at mp4ra.org
    "image/avif": (_NOTHING_ELSE, ("avif", "avis")),
    "image/heic": (_HEIF, ("heic", "heix", "heim", "heis")),
    "image/heic-sequence": (_HEIF, ("hevc", "hevx", "hevm", "hevs")),
    "image/heif": (_HEIF, ("mif1", "mif2")),
    "image/heif-sequence": (_HEIF, ("msf1",)),
    "image/x-canon-cr3": (_NOTHING_ELSE, ("crx ",)),
    "video/quicktime": (_NOTHING_ELSE, ("qt  ",)),
    "audio/mp4": (re.compile("audio/x-m4a"), ("M4A ", "M4B ", "M4P ")),
}
_STILL = frozenset({"mif1", "mif2", "msf1"})  # the same for every codec: the compatible brands name it
_3GPP = Container("video/3gpp", re.compile("audio/3gpp"))
_3GPP2 = Container("video/3gpp2", re.compile("audio/3gpp2"))
_MP4 = Container("video/mp4", re.compile(r"audio/(mp4|x-m4a)|video/x-m4v"))

_OGG_CODECS = {  # the beginning of the first packet
    b"OpusHead": "audio/ogg",  # RFC 7845
    b"\x01vorbis": "audio/ogg",  # RFC 5334
    b"Speex   ": "audio/ogg",
    b"\x7fFLAC": "audio/ogg",
    b"\x80theora": "video/ogg",
}
_OGG_HEADER = 28  # bytes of the first page before its packet, which fits one segment: RFC 3533 section 6
_RIFF = {
    b"WEBP": Container("image/webp", _NOTHING_ELSE),
    b"WAVE": Container("audio/wave", re.compile(r"audio/(wav|x-wav|vnd\.wave)")),
    b"AVI ": Container("video/x-msvideo", re.compile(r"video/(avi|msvideo)")),
}
_WEBM = Container("video/webm", re.compile("audio/webm"))
_MATROSKA = Container("video/x-matroska", re.compile(r"(audio|video)/(x-)?matroska"))
_DOCTYPE = re.compile(rb"\x42\x82[\x80-\xff](webm|matroska)")  # the element DocType: RFC 8794 section 11.2.6


def container_of(head: bytes) -> Container | None:
    """Return the container format of a file that begins with `head`; None for a file that is none of these."""
    if head.startswith(b"PK\x03\x04"):
        return _ZIP
    if head.startswith(b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"):
        return _OLE
    if head[4:8] == b"ftyp":
        return _of_brands(head)
    if head.startswith(b"\x1a\x45\xdf\xa3"):
        doctype = _DOCTYPE.search(head[:128])
        return None if doctype is None else _WEBM if doctype[1] == b"webm" else _MATROSKA
    if head.startswith(b"OggS"):
        packet = head[_OGG_HEADER:]
        told = next((told for start, told in _OGG_CODECS.items() if packet.startswith(start)), None)
        return Container(told, _NOTHING_ELSE) if told else Container("application/ogg", re.compile("(audio|video)/ogg"))
    return _RIFF.get(head[8:12]) if head.startswith(b"RIFF") else None


def _of_brands(head: bytes) -> Container:
    size = int.from_bytes(head[:4])
    brands = [head[place : place + 4].decode("latin-1") for place in (8, *range(16, min(size, len(head)) - 3, 4))]
    major = brands[0]
    if major.startswith("3g"):
        return _3GPP2 if major.startswith("3g2") else _3GPP
    for media_type, (holds, of_type) in _BY_BRAND.items():
        if major in of_type or (major in _STILL and not _STILL.issuperset(of_type) and set(brands) & set(of_type)):
            return Container(media_type, holds)
    return _MP4
