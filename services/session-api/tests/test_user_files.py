"""Reading files of users: what is a row, what is not, and what is no file at all."""

import json

import pytest
from session_api.import_service import checked_file
from session_api.passwords import MAX_PASSWORD
from session_api.user_files import MAX_ROWS, UserFile, read_csv, read_json
from tlim_protocol.errors import ErrorCode, TlimError
from tlim_runtime.errors import PayloadTooLarge


def values(file: UserFile) -> list[tuple[int, dict[str, object]]]:
    return [(row.number, row.values) for row in file.rows]


@pytest.mark.parametrize("start", ["", "\ufeff"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_csv_is_read_with_and_without_byte_order_mark(start: str, end: str) -> None:
    lines = ["User_ID, name ,password", "alice, 爱丽丝 , pass word ", "", '"bob","Bob, ""the"" Builder",', ""]
    file = read_csv((start + end.join(lines)).encode())
    assert values(file) == [
        (1, {"user_id": "alice", "name": "爱丽丝", "password": " pass word "}),
        (2, {"user_id": "bob", "name": 'Bob, "the" Builder', "password": ""}),
    ]
    assert (file.refused, file.ignored, file.has_passwords) == ([], [], True)


def test_columns_come_in_any_order_and_unknown_ones_are_named() -> None:
    file = read_csv(b"department,name,user_id\nsales,Bob,bob\n")
    assert file.ignored == ["department"]
    assert file.rows[0].text("user_id") == "bob"
    assert not file.has_passwords


def test_a_row_of_another_length_is_refused_by_itself() -> None:
    file = read_csv(b"user_id,name\nalice\nbob,Bob\ncarol,Carol,x\n")
    assert [row.number for row in file.rows] == [2]
    assert [(number, error.code) for number, error in file.refused] == [
        (1, ErrorCode.FIELD_INVALID),
        (3, ErrorCode.FIELD_INVALID),
    ]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"name\nBob\n",
        b"user_id,user_id\nbob,bob\n",
        b"alice,Alice\n",
        "user_id,name\nbob,鲍勃\n".encode("gb18030"),
        b'user_id,name\nbob,"never closed\n',
        b'user_id,name\nbob,"x"y\n',
        b"user_id\n" + b"x" * 200_000,
    ],
)
def test_what_is_no_such_csv_file_is_refused_as_a_whole(data: bytes) -> None:
    with pytest.raises(TlimError) as refused:
        read_csv(data)
    assert (refused.value.code, refused.value.field) == (ErrorCode.FIELD_INVALID, "file")


def test_json_is_an_array_of_objects() -> None:
    file = read_json(b'\xef\xbb\xbf[{"user_id":"bob","team":1},7,{"user_id":"carol","name":null}]')
    assert values(file) == [(1, {"user_id": "bob", "team": 1}), (3, {"user_id": "carol", "name": None})]
    assert [number for number, _ in file.refused] == [2]
    assert file.ignored == ["team"]


def test_columns_that_nobody_can_be_told_are_told_as_far_as_they_can_be() -> None:
    many = ",".join(f'"{"x" * 100}{number}": 1' for number in range(200))
    file = read_json(f'[{{"\\ud800": 1, "部门": 2, {many}}}]'.encode())
    assert file.ignored[:2] == ["?", "部门"]
    assert (len(file.ignored), max(map(len, file.ignored))) == (100, 64)


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", ErrorCode.JSON_INVALID),
        (b"[", ErrorCode.JSON_INVALID),
        (b"[" * 200_000, ErrorCode.JSON_INVALID),
        (b"{}", ErrorCode.NOT_AN_ARRAY),
        (b"null", ErrorCode.NOT_AN_ARRAY),
    ],
)
def test_what_is_no_array_is_refused_as_a_whole(data: bytes, code: ErrorCode) -> None:
    with pytest.raises(TlimError) as refused:
        read_json(data)
    assert refused.value.code is code


def test_a_file_holds_so_many_users_and_no_more() -> None:
    rows = [f"u{one}" for one in range(MAX_ROWS)]
    assert len(read_csv("\n".join(["user_id", *rows]).encode()).rows) == MAX_ROWS
    with pytest.raises(PayloadTooLarge):
        read_csv("\n".join(["user_id", *rows, "one-more"]).encode())
    with pytest.raises(PayloadTooLarge):
        read_json(json.dumps([{"user_id": one} for one in [*rows, "one-more"]]).encode())


def test_every_bad_row_is_told_and_of_a_user_who_comes_twice_the_first_counts() -> None:
    rows: list[dict[str, object]] = [
        {"user_id": "Bob", "name": "Bob"},
        {"user_id": " "},
        {},
        {"user_id": 7},
        {"user_id": "a@b"},
        {"user_id": "x" * 65},
        {"user_id": "carol", "name": "x" * 129},
        {"user_id": "BOB", "name": "Robert"},
        {"user_id": "dave", "password": "x" * (MAX_PASSWORD + 1)},
        {"user_id": "erin", "password": "a\u0000b"},
        {"user_id": "frank", "password": ["x"]},
        {"user_id": "grace", "name": "", "password": "secret"},
    ]
    checked = checked_file(read_json(json.dumps(rows).encode()))
    assert checked.names == {"bob": "Bob", "grace": None}
    assert checked.passwords == {"grace": "secret"}
    assert [(number, error.code, error.field) for number, error in checked.refused] == [
        (2, ErrorCode.USER_UNKNOWN, "user_id"),
        (3, ErrorCode.USER_UNKNOWN, "user_id"),
        (4, ErrorCode.FIELD_INVALID, "user_id"),
        (5, ErrorCode.FIELD_INVALID, "user_id"),
        (6, ErrorCode.FIELD_INVALID, "user_id"),
        (7, ErrorCode.FIELD_INVALID, "name"),
        (8, ErrorCode.FIELD_INVALID, "user_id"),
        (9, ErrorCode.FIELD_INVALID, "password"),
        (10, ErrorCode.FIELD_INVALID, "password"),
        (11, ErrorCode.FIELD_INVALID, "password"),
    ]


def test_a_password_is_neither_shown_nor_quoted() -> None:
    file = read_json(b'[{"user_id":"bob","password":"hunter2"},{"user_id":"carol","password":"hunter2\\u0000"}]')
    checked = checked_file(file)
    assert "hunter2" not in repr(file) + repr(checked) + checked.refused[0][1].detail
