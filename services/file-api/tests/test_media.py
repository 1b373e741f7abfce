"""Media types: content first, then what the sender says."""

import pytest
from file_api.media.types import UNKNOWN, media_type_of

PNG = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\1"
RIFF = b"RIFF\x24\0\0\0"
ZIP = b"PK\x03\x04\x14\0\6\0\x08\0" + bytes(20)


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
        (ZIP, None, "", "application/zip"),
        (ZIP, "application/vnd.openxmlformats-officedocument.wordprocessingml.document", "",
         "application/vnd.openxmlformats-officedocument.wordprocessingml.document"),
        (ZIP, None, "a.xlsx", "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"),
        (RIFF + b"WEBPVP8 ", "audio/wav", "", "image/webp"),
        (RIFF + b"WEBPVP8 ", None, "a.avi", "image/webp"),
        (RIFF + b"WAVEfmt ", "audio/wav", "", "audio/wav"),
        (RIFF + b"WAVEfmt ", "image/webp", "", "audio/wave"),
        (b"OggS\0\2" + bytes(30), "audio/ogg", "", "audio/ogg"),
        (b"OggS\0\2" + bytes(30), "application/annodex", "", "application/ogg"),
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
