"""Media types: content first, then what the sender says."""

import pytest
from file_api.media.types import UNKNOWN, media_type_of

PNG = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\1"
RIFF = b"RIFF\x24\0\0\0"
ZIP = b"PK\x03\x04\x14\0\6\0\x08\0" + bytes(20)
OLE = bytes.fromhex("d0cf11e0a1b11ae1") + bytes(504)
WEBM = bytes.fromhex("1a45dfa39f4286810142f7810142f2810442f381084282847765626d42878104")
MATROSKA = bytes.fromhex("1a45dfa3a34286810142f7810142f2810442f381084282886d6174726f736b6142878104")
DOCX = "application/vnd.openxmlformats-officedocument.wordprocessingml.document"


def mp4(*brands: str) -> bytes:
    major, *compatible = brands
    names = major.encode() + bytes(4) + "".join(compatible).encode()
    return (8 + len(names)).to_bytes(4) + b"ftyp" + names + b"\0\0\0\x08free"


def ogg(packet: bytes) -> bytes:
    return b"OggS\0\2" + bytes(20) + b"\1" + bytes([len(packet)]) + packet


@pytest.mark.parametrize(
    ("head", "declared", "name", "expected"),
    [
        (PNG, "text/html", "page.html", "image/png"),
        (b"\xff\xd8\xff\xe0\0\x10JFIF\0\1\1", None, "", "image/jpeg"),
        (b"%PDF-1.7\n", "application/octet-stream", "a.bin", "application/pdf"),
        (b"\0\0\0\x18ftypmp42\0\0\0\0", None, "", "video/mp4"),
        (b"#!AMR\n\x3c" + bytes(9), None, "", "audio/amr"),
        (b"#!AMR\n\x3c" + bytes(9), "audio/amr", "", "audio/amr"),
        (b"\x02#!SILK_V3", "audio/silk", "", "audio/silk"),
        (mp4("mp42", "isom", "mp42"), "audio/mp4", "", "audio/mp4"),  # Android's recorder
        (mp4("mp42", "isom", "mp42"), "application/octet-stream", "voice.m4a", "audio/mp4"),
        (mp4("mp42"), "text/html", "page.html", "video/mp4"),
        (mp4("mp42"), "image/heic", "a.heic", "video/mp4"),
        (mp4("M4A ", "M4A ", "isom"), None, "", "audio/mp4"),
        (mp4("qt  "), "video/mp4", "", "video/quicktime"),
        (mp4("3gp4", "isom"), "audio/3gpp", "", "audio/3gpp"),
        (mp4("3gp4", "isom"), "video/3gpp", "a.3gp", "video/3gpp"),
        (mp4("3gp4", "isom"), None, "a.3gp", "video/3gpp"),
        (mp4("3g2a"), "audio/3gpp2", "", "audio/3gpp2"),
        (mp4("heic", "mif1", "heic"), None, "", "image/heic"),
        (mp4("mif1", "mif1", "heic", "miaf"), None, "", "image/heic"),  # heif-enc
        (mp4("mif1", "avif", "mif1", "miaf"), "video/mp4", "", "image/avif"),  # heif-enc -A
        (mp4("avif", "mif1", "miaf"), None, "", "image/avif"),
        (mp4("mif1", "mif1"), None, "", "image/heif"),
        (mp4("heic", "mif1"), "image/heif", "", "image/heif"),
        (WEBM, None, "", "video/webm"),
        (WEBM, "audio/webm;codecs=opus", "", "audio/webm"),  # MediaRecorder of browsers
        (WEBM, "text/html", "", "video/webm"),
        (MATROSKA, "audio/webm", "", "video/x-matroska"),
        (MATROSKA, None, "a.mka", "audio/x-matroska"),
        (OLE, None, "", "application/x-ole-storage"),
        (OLE, None, "a.doc", "application/msword"),
        (OLE, None, "a.xls", "application/vnd.ms-excel"),
        (OLE, "application/vnd.ms-powerpoint", "", "application/vnd.ms-powerpoint"),
        (OLE, "application/octet-stream", "mail.msg", "application/vnd.ms-outlook"),
        (OLE, "application/x-ole-storage", "a.ppt", "application/vnd.ms-powerpoint"),
        (OLE, "text/html", "a.html", "application/x-ole-storage"),
        (OLE, DOCX, "", DOCX),  # encrypted
        (ZIP, None, "", "application/zip"),
        (ZIP, None, "app.apk", "application/vnd.android.package-archive"),
        (ZIP, "application/zip", "invoice.ofd", "application/ofd"),
        (ZIP, "application/x-zip-compressed", "a.zip", "application/zip"),
        (ZIP, "application/epub+zip", "", "application/epub+zip"),
        (ZIP, "image/svg+xml", "a.svg", "application/zip"),
        (ZIP, DOCX, "", DOCX),
        (ZIP, None, "a.xlsx", "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"),
        (RIFF + b"WEBPVP8 ", "audio/wav", "", "image/webp"),
        (RIFF + b"WEBPVP8 ", None, "a.avi", "image/webp"),
        (RIFF + b"WAVEfmt ", "audio/wav", "", "audio/wav"),
        (RIFF + b"WAVEfmt ", "image/webp", "", "audio/wave"),
        (ogg(b"OpusHead\1\1"), "application/ogg", "", "audio/ogg"),
        (ogg(b"OpusHead\1\1"), "audio/opus", "a.opus", "audio/ogg"),
        (ogg(b"\x80theora"), "audio/ogg", "", "video/ogg"),
        (ogg(bytes(8)), "audio/ogg", "", "audio/ogg"),
        (ogg(bytes(8)), "application/annodex", "", "application/ogg"),
        (b"BMW is a car", None, "", "text/plain"),
        ("你好,世界".encode(), None, "", "text/plain"),
        ("你好".encode()[:-1], None, "", "text/plain"),
        (b"a,b\n1,2\n", None, "a.csv", "text/csv"),
        (b"a,b\n1,2\n", "text/csv; charset=utf-8", "", "text/csv"),
        (b"<!DOCTYPE html><html>", "text/plain", "", "text/plain"),
        (b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg">', "image/svg+xml", "", "image/svg+xml"),
        (b"\x00\x01\x02\x03", None, "", UNKNOWN),
        (b"\x00\x01\x02\x03", "not a type", "", UNKNOWN),
        (b"x", "text/html\r\nX: y", "", "text/plain"),
    ],
)  # fmt: skip
def test_the_media_type(head: bytes, declared: str | None, name: str, expected: str) -> None:
    assert media_type_of(head, declared, name) == expected
