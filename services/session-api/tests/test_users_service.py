"""The rules of the directory, without a database."""

import pytest
from session_api.errors import RowsRefusedError
from session_api.users_service import Person, checked_people, user_ids
from tlim_protocol.errors import ErrorCode


def test_ids_are_normalised_and_keep_their_order() -> None:
    assert user_ids(["Carol", "alice", "CAROL", "李雷"]) == ("carol", "alice", "李雷")


def test_a_person_without_a_name_is_called_by_his_id() -> None:
    assert checked_people([Person("Bob"), Person("alice", "爱丽丝")]) == {"bob": "bob", "alice": "爱丽丝"}


def test_one_refusal_names_every_bad_row() -> None:
    people = [Person("alice"), Person(""), Person("bob", "x" * 129), Person("ALICE"), Person("a@b"), Person("c", " ")]
    with pytest.raises(RowsRefusedError) as refused:
        checked_people(people)
    assert [(row, error.code, error.field) for row, error in refused.value.rows] == [
        (1, ErrorCode.USER_UNKNOWN, "user_id"),
        (2, ErrorCode.FIELD_INVALID, "name"),
        (3, ErrorCode.FIELD_INVALID, "user_id"),
        (4, ErrorCode.FIELD_INVALID, "user_id"),
        (5, ErrorCode.FIELD_INVALID, "name"),
    ]
    assert refused.value.field == "users.1.user_id"
