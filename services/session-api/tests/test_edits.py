"""What may be asked of a session, without a database: who may do what, and what an edit comes to."""

from collections.abc import Sequence

import pytest
from session_api.edits import (
    Change,
    Edit,
    check_size,
    checked_edit,
    checked_session_id,
    joined_name,
    leader_of,
    plan_edit,
)
from session_api.errors import VersionConflictError
from session_api.models import Session
from tlim_protocol.errors import ErrorCode, TlimError

LIMIT = 5
EVERYBODY = {"alice", "bob", "carol", "dave", "erin", "frank", "grace"}


def a_session(*, creator: str = "alice", version: int = 3, deleted_at: int | None = None) -> Session:
    return Session(
        session_id="s-1",
        session_name="lunch",
        session_type=1,
        creator=creator,
        version=version,
        changed_by="bob",
        created_at=1000,
        modified_at=2000,
        deleted_at=deleted_at,
    )


def plan(
    edit: Edit,
    *,
    caller: str = "alice",
    inside: Sequence[str] = ("alice", "bob", "carol"),
    known: set[str] = EVERYBODY,
) -> Change:
    return plan_edit(a_session(), inside, caller, checked_edit(edit), known=known, limit=LIMIT)


def refusal_of(edit: Edit, **situation: object) -> ErrorCode:
    with pytest.raises(TlimError) as refused:
        plan(edit, **situation)  # type: ignore[arg-type]
    return refused.value.code


@pytest.mark.parametrize("caller", ["alice", "bob"])
def test_any_subscriber_renames_and_adds(caller: str) -> None:
    change = plan(Edit("dinner", add=["dave"]), caller=caller)
    assert change == Change("dinner", added=("dave",))


def test_the_creator_removes_others() -> None:
    assert plan(Edit(remove=["bob", "carol"])).removed == ("bob", "carol")


def test_everybody_removes_himself() -> None:
    assert plan(Edit(remove=["bob"]), caller="bob").removed == ("bob",)


@pytest.mark.parametrize("others", [["carol"], ["bob", "carol"], ["nobody"]])
def test_nobody_but_the_creator_removes_others(others: list[str]) -> None:
    assert refusal_of(Edit(remove=others), caller="bob") is ErrorCode.NOT_ALLOWED


def test_a_refused_removal_lets_nothing_else_of_the_edit_through() -> None:
    assert refusal_of(Edit("dinner", add=["dave"], remove=["carol"]), caller="bob") is ErrorCode.NOT_ALLOWED


def test_a_stranger_hears_that_there_is_no_such_session() -> None:
    assert refusal_of(Edit("dinner"), caller="mallory") is ErrorCode.SESSION_UNKNOWN


def test_a_deactivated_member_changes_nothing() -> None:
    assert refusal_of(Edit("dinner"), caller="bob", known=EVERYBODY - {"bob"}) is ErrorCode.NOT_ALLOWED


def test_what_is_so_already_is_no_change() -> None:
    assert plan(Edit("lunch", add=["bob"], remove=["dave"])) == Change("lunch")


def test_unknown_people_are_reported_and_the_rest_is_done() -> None:
    change = plan(Edit(add=["dave", "ghost"]))
    assert (change.added, change.unknown) == (("dave",), ("ghost",))


def test_a_deactivated_member_is_not_reported_as_unknown_when_added_again() -> None:
    assert plan(Edit(add=["bob"]), known={"alice"}).unknown == ()


def test_adding_nobody_but_unknown_people_is_refused() -> None:
    assert refusal_of(Edit(add=["ghost"])) is ErrorCode.USER_UNKNOWN


def test_renaming_while_adding_only_unknown_people_renames() -> None:
    assert plan(Edit("dinner", add=["ghost"])) == Change("dinner", unknown=("ghost",))


def test_a_session_never_grows_over_the_limit() -> None:
    assert refusal_of(Edit(add=["dave", "erin", "frank"])) is ErrorCode.FIELD_INVALID


def test_who_leaves_makes_room_in_the_same_edit() -> None:
    change = plan(Edit(add=["dave", "erin", "frank"], remove=["bob"]))
    assert len(change.added) == 3


def test_a_session_over_a_lowered_limit_can_still_be_renamed_and_shrink() -> None:
    six = ("alice", "bob", "carol", "dave", "erin", "frank")
    assert plan(Edit("dinner", remove=["bob"]), inside=six).removed == ("bob",)


def test_the_limit_itself_is_still_allowed() -> None:
    check_size(LIMIT, LIMIT)


def test_another_version_than_the_one_seen_is_a_conflict() -> None:
    with pytest.raises(VersionConflictError):
        plan(Edit("dinner", version=2))
    assert plan(Edit("dinner", version=3)).session_name == "dinner"


def test_a_stranger_does_not_learn_the_version() -> None:
    assert refusal_of(Edit("dinner", version=2), caller="mallory") is ErrorCode.SESSION_UNKNOWN


def test_when_the_creator_has_left_who_has_been_in_longest_leads() -> None:
    assert leader_of(a_session(), ["bob", "carol"], EVERYBODY) == "bob"
    assert plan(Edit(remove=["carol"]), caller="bob", inside=["bob", "carol"]).removed == ("carol",)
    assert refusal_of(Edit(remove=["bob"]), caller="carol", inside=["bob", "carol"]) is ErrorCode.NOT_ALLOWED


def test_a_creator_who_comes_back_leads_again() -> None:
    assert leader_of(a_session(), ["bob", "carol", "alice"], EVERYBODY) == "alice"


@pytest.mark.parametrize("unseen", ["", "  ", "\u3000", "\u200b", "\u3164", "gpj.exe\u202e"])
def test_a_name_that_nobody_can_read_has_its_own_code(unseen: str) -> None:
    with pytest.raises(TlimError) as refused:
        checked_edit(Edit(unseen))
    assert refused.value.code is ErrorCode.SESSION_NAME_EMPTY


@pytest.mark.parametrize("name", ["x" * 129, "two\nlines", "nul\x00", "\ud800"])
def test_a_name_that_is_too_long_or_not_plain_text_is_refused(name: str) -> None:
    with pytest.raises(TlimError) as refused:
        checked_edit(Edit(name))
    assert (refused.value.code, refused.value.field) == (ErrorCode.FIELD_INVALID, "session_name")


def test_a_name_of_128_chinese_characters_is_taken() -> None:
    assert checked_edit(Edit("会" * 128)).session_name == "会" * 128


def test_ids_are_compared_as_xmpp_does_and_each_counts_once() -> None:
    assert checked_edit(Edit(add=["Bob", "carol", "BOB"])).add == ("bob", "carol")


@pytest.mark.parametrize(
    ("edit", "code"),
    [
        (Edit(), ErrorCode.FIELD_INVALID),
        (Edit(add=[" "]), ErrorCode.USER_UNKNOWN),
        (Edit(remove=[""]), ErrorCode.USER_UNKNOWN),
        (Edit(add=["a@b"]), ErrorCode.FIELD_INVALID),
        (Edit(add=["x" * 65]), ErrorCode.FIELD_INVALID),
        (Edit(add=["bob"], remove=["Bob"]), ErrorCode.FIELD_INVALID),
    ],
)
def test_an_edit_that_makes_no_sense_is_refused_before_the_session_is_looked_at(edit: Edit, code: ErrorCode) -> None:
    with pytest.raises(TlimError) as refused:
        checked_edit(edit)
    assert refused.value.code is code


@pytest.mark.parametrize(
    ("session_id", "code"),
    [("", ErrorCode.SESSION_ID_EMPTY), (" ", ErrorCode.SESSION_ID_EMPTY), ("x" * 65, ErrorCode.FIELD_INVALID)],
)
def test_an_id_no_session_can_have_is_refused(session_id: str, code: ErrorCode) -> None:
    with pytest.raises(TlimError) as refused:
        checked_session_id(session_id)
    assert refused.value.code is code


def test_a_session_is_called_after_its_people_cut_to_128_characters() -> None:
    assert joined_name(["a", "b"], {"a": "爱丽丝", "b": "Bob"}) == "爱丽丝,Bob"
    assert joined_name(["a", "b"], {"a": "x" * 127, "b": "y"}) == "x" * 127 + ","


def test_an_old_name_that_nobody_can_read_gives_way_to_the_id_and_one_that_turns_text_is_straightened() -> None:
    names = {"a": "\u3164", "b": "\u202egnp.tac", "c": "Carol"}
    assert joined_name(["a", "b", "c"], names) == "a,gnp.tac,Carol"
