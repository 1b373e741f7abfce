"""The form reader: the same file however the network cuts the body, and one refusal for what is no form."""

from collections.abc import AsyncIterator
from contextlib import suppress
from itertools import pairwise

import pytest
from file_api.upload.multipart import MAX_FRAMING, FilePart, FormReader
from hypothesis import given
from hypothesis import strategies as st
from tlim_protocol.errors import ErrorCode, TlimError
from tlim_runtime.errors import PayloadTooLarge

BOUNDARY = "frontier-7"
CONTENT_TYPE = f"multipart/form-data; boundary={BOUNDARY}"


def form(*parts: tuple[str, bytes], boundary: str = BOUNDARY) -> bytes:
    body = b"".join(b"--%s\r\n%s\r\n\r\n%s\r\n" % (boundary.encode(), head.encode(), data) for head, data in parts)
    return body + b"--%s--\r\n" % boundary.encode()


def file_part(data: bytes, name: str = "a.png") -> tuple[str, bytes]:
    return f'Content-Disposition: form-data; name="f"; filename="{name}"\r\nContent-Type: image/png', data


FIELD = ('Content-Disposition: form-data; name="note"', b"only text")


async def in_chunks(body: bytes, *cuts: int) -> AsyncIterator[bytes]:
    edges = [0, *sorted(cut % (len(body) + 1) for cut in cuts), len(body)]
    for start, end in pairwise(edges):
        if start < end:
            yield body[start:end]


async def read(body: bytes, *cuts: int, content_type: str = CONTENT_TYPE) -> tuple[FilePart, bytes]:
    reader = FormReader(content_type, in_chunks(body, *cuts))
    part = await reader.open()
    return part, b"".join([data async for data in reader.data()])


@given(
    data=st.one_of(
        st.binary(max_size=300),
        st.lists(st.sampled_from([b"\r", b"\n", b"-", b"--", BOUNDARY.encode(), b"\r\n--frontier-", b"x"])).map(
            b"".join
        ),
    ).filter(lambda data: f"\r\n--{BOUNDARY}".encode() not in b"\r\n" + data),
    cuts=st.lists(st.integers(0, 2000), max_size=30),
)
async def test_any_cutting_of_the_body_gives_the_same_file(data: bytes, cuts: list[int]) -> None:
    body = form(FIELD, file_part(data), FIELD)
    assert await read(body, *cuts) == (FilePart("a.png", "image/png"), data)


@given(body=st.binary(max_size=200), cuts=st.lists(st.integers(0, 200), max_size=5))
async def test_any_bytes_are_a_file_or_one_refusal(body: bytes, cuts: list[int]) -> None:
    with suppress(TlimError):
        await read(b"--%s\r\n" % BOUNDARY.encode() + body, *cuts)


async def test_a_chinese_name_arrives_as_browsers_send_it() -> None:
    part, _ = await read(form(file_part(b"x", "照片.png")))
    assert part.name == "照片.png"


async def test_a_part_without_a_name_counts_by_its_type() -> None:
    head = 'Content-Disposition: form-data; name="f"\r\nContent-Type: audio/amr'
    assert await read(form(FIELD, (head, b"#!AMR"))) == (FilePart(None, "audio/amr"), b"#!AMR")


async def test_what_follows_the_form_is_ignored() -> None:
    assert (await read(form(file_part(b"x")) + b"epilogue"))[1] == b"x"


JSON = ('Content-Disposition: form-data; name="meta"\r\nContent-Type: application/json; charset=UTF-8', b'{"a":1}')


async def test_a_json_part_beside_the_file_is_a_field() -> None:
    assert await read(form(JSON, file_part(b"x"), JSON)) == (FilePart("a.png", "image/png"), b"x")


async def test_a_preamble_is_read_past() -> None:
    assert (await read(b"This is a message\r\nin MIME format.\r\n" + form(file_part(b"x"))))[1] == b"x"


@given(data=st.lists(st.sampled_from([b"\r", b"\n", b"-", b"x"])).map(b"".join), cuts=st.lists(st.integers(0, 500)))
async def test_lines_may_end_with_lf_alone(data: bytes, cuts: list[int]) -> None:
    head, _ = file_part(b"")
    body = b"--%s\n%s\n\n%s\n--%s--\n" % (BOUNDARY.encode(), head.replace("\r", "").encode(), data, BOUNDARY.encode())
    assert await read(body, *cuts) == (FilePart("a.png", "image/png"), data)


@pytest.mark.parametrize(
    ("written", "name"),
    [
        (b'image.jpg"', "image.jpg"),
        (bytes(ord(char) & 0xFF for char in "服务器.jpg"), "\r\ue4ee.jpg"),  # unreadable, but for its extension
        (b"a\rb.jpg", "a\rb.jpg"),
        (b"a\nb.jpg", "a\nb.jpg"),
        (b"a\r\nb.jpg", "ab.jpg"),
        (b"a\0b.jpg", "a\0b.jpg"),
    ],
    ids=["two quotes", "low bytes of Chinese", "CR", "LF", "CRLF", "NUL"],
)
async def test_names_of_old_clients_are_taken(written: bytes, name: str) -> None:
    body = form(file_part(b"x", "NAME")).replace(b"NAME", written)
    part, data = await read(body)
    assert (part.name, data) == (name, b"x")


async def test_a_boundary_may_be_followed_by_blanks() -> None:
    body = form(file_part(b"x")).replace(b"frontier-7\r\n", b"frontier-7 \t\r\n")
    assert (await read(body))[1] == b"x"


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (form(FIELD), CONTENT_TYPE),
        (form(file_part(b"1"), file_part(b"2")), CONTENT_TYPE),
        (form(file_part(b"x"))[:-6], CONTENT_TYPE),
        (b"", CONTENT_TYPE),
        (b"no form", CONTENT_TYPE),
        (form(file_part(b"x")), "multipart/form-data"),
        (form(file_part(b"x")), f"multipart/form-data; boundary={'x' * 300}"),
        (form(("Content-Transfer-Encoding: base64\r\n" + file_part(b"")[0], b"eA==")), CONTENT_TYPE),
        (form(("X: " + "y" * 20_000, b"")), CONTENT_TYPE),
        (form(JSON), CONTENT_TYPE),
        (form(file_part(b"x")).replace(b"7--", b"7x"), CONTENT_TYPE),
    ],
    ids=[
        "no file",
        "two files",
        "cut short",
        "empty",
        "no form",
        "no boundary",
        "long boundary",
        "base64",
        "header",
        "only JSON",
        "longer boundary",
    ],
)
async def test_what_is_no_form_with_one_file_is_refused(body: bytes, content_type: str) -> None:
    with pytest.raises(TlimError) as refusal:
        await read(body, content_type=content_type)
    assert refusal.value.code is ErrorCode.FIELD_INVALID


async def test_a_form_that_is_all_text_is_not_read_to_its_end() -> None:
    with pytest.raises(PayloadTooLarge):
        await read(form((FIELD[0], bytes(MAX_FRAMING)), file_part(b"x")))


async def test_memory_holds_no_more_than_one_chunk() -> None:
    fed = 0

    async def body() -> AsyncIterator[bytes]:
        nonlocal fed
        whole = form(file_part(bytes(1_000_000)))
        for start in range(0, len(whole), 1000):
            fed += 1
            yield whole[start : start + 1000]

    reader = FormReader(CONTENT_TYPE, body())
    await reader.open()
    given_out = 0
    async for data in reader.data():
        given_out += len(data)
        assert fed * 1000 - given_out < 2000
