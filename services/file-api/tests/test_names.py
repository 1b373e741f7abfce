"""File names: read, made safe, written."""

from urllib.parse import unquote

import pytest
from file_api.media.names import MAX_NAME, attachment, read_disposition, safe_name
from hypothesis import given
from hypothesis import strategies as st


@pytest.mark.parametrize(
    ("header", "name"),
    [
        ('form-data; name="f"; filename="照片.jpg"'.encode(), "照片.jpg"),
        ('form-data; name="f"; filename="照片.jpg"'.encode("gbk"), "照片.jpg"),
        (b"attachment; filename*=UTF-8''%E7%85%A7%E7%89%87.jpg", "照片.jpg"),
        (b"attachment; filename=\"x.jpg\"; filename*=utf-8'zh'%E7%85%A7.jpg", "照.jpg"),
        (b"attachment; filename*=nonsense''%E7%85%A7.jpg", "照.jpg"),
        (b"attachment; filename*=GBK''%D5%D5.jpg", "照.jpg"),
        (b"attachment; filename*=iso-8859-1''%E9.jpg", "é.jpg"),
        (b"attachment; filename*=undefined''abc", "abc"),
        (b"attachment; filename*=punycode''..", ".."),
        (b"attachment; filename*=idna''..", ".."),
        (b"attachment; filename*=unicode_escape''%5Cx41", r"\x41"),
        (b'form-data; name="f"; filename="a%22b.txt"', 'a"b.txt'),
        (b'form-data; name="f"; filename="a;b.txt"', "a;b.txt"),
        (b'form-data; name="f"; filename="image.jpg""', "image.jpg"),
        (b'form-data; name="f"; filename="say \\"hi\\""', 'say "hi"'),
        (b'form-data; name="f"; filename=""', ""),
        (b'form-data; name="f"', None),
        (b"", None),
    ],
)
def test_a_name_is_read_in_every_form_in_use(header: bytes, name: str | None) -> None:
    assert read_disposition(header)[1] == name


@pytest.mark.parametrize(
    ("raw", "safe"),
    [
        ("报告.docx", "报告.docx"),
        ("../../etc/passwd", "passwd"),
        ("C:\\Users\\me\\a.txt", "a.txt"),
        ("a\r\nSet-Cookie: x.txt", "aSet-Cookie: x.txt"),
        ("photo\u202egnp.exe", "photognp.exe"),
        (" . ", ""),
        ("\u200fa\u200e\u061c\u2066b.txt", "ab.txt"),
        ("\u200b\u2060", ""),
        ("\u200d", ""),
        ("\u3164", ""),
        (None, ""),
        ("é.txt", "é.txt"),
    ],
)
def test_a_name_is_made_safe(raw: str | None, safe: str) -> None:
    assert safe_name(raw) == safe


def test_of_a_very_long_name_only_the_end_is_looked_at() -> None:
    marks = "\u0301\u0327" * 30_000
    assert safe_name(f"a{marks}b.txt") == safe_name(f"{marks[-1019:]}b.txt")


FAMILY = "\U0001f468\u200d\U0001f469\u200d\U0001f467"
PERSIAN = "\u0646\u0627\u0645\u0647\u200c\u0647\u0627"  # the letters
FLAG = "\U0001f3f4\U000e0067\U000e0062\U000e007f"


@pytest.mark.parametrize("name", [f"{FAMILY}.jpg", f"{PERSIAN}.pdf", f"{FLAG}.png"])
def test_what_joins_neighbours_stays(name: str) -> None:
    assert safe_name(name) == name


@given(st.text(max_size=400))
def test_any_text_becomes_a_short_name_that_is_stable(raw: str) -> None:
    name = safe_name(raw)
    assert len(name.encode()) <= MAX_NAME
    assert not set(name) & set("/\\\r\n\0")
    assert safe_name(name) == name


def test_a_long_name_keeps_its_extension() -> None:
    assert safe_name("报" * 300 + ".docx").endswith("报.docx")


@given(st.text(max_size=80))
def test_any_name_can_be_read_back_from_the_header(raw: str) -> None:
    name = safe_name(raw)
    header = attachment(name, "fallback")
    assert header.isascii()
    assert header.isprintable()
    assert unquote(read_disposition(header.encode())[1] or "") == unquote(name or "fallback")
