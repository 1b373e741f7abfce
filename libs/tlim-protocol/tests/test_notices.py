"""What a notice says to people who were just added, and to all others."""

from typing import Any

import pytest
from tlim_protocol.lenient import write_json
from tlim_protocol.notices import MAX_LISTED, SHORT_BYTES, form_for, kept_form, newcomers, short_form


def people(first: int, count: int) -> list[dict[str, str]]:
    return [{"user_id": f"user{number:05}"} for number in range(first, first + count)]


def element(members: int, added: int = 0, removed: int = 0, name: str = "Project X") -> dict[str, Any]:
    """A change of a session as message-store has it, with everybody who is concerned."""
    return {
        "session_id": "0b6eba5b-0ad3-4f0c-a5b3-b4e6c2e8e6a3", "session_name": name, "session_type": 0,
        "session_user": "user00000", "session_valid": 0, "session_modify_time": "1599218283837", "actor": "user00001",
        "version": 1234, "subscribers": people(0, members), "added": people(0, added),
        "removed": people(10_000, removed),
    }  # fmt: skip


def test_only_who_was_just_added_gets_the_whole_list() -> None:
    whole = element(3, added=1, removed=1)
    kept = kept_form(whole)
    assert form_for("user00000", kept)["subscribers"] == whole["subscribers"]
    for other in ("user00001", "user10000"):
        told = form_for(other, kept)
        assert "subscribers" not in told
        assert (told["added"], told["removed"], told["subscribers_count"]) == (whole["added"], whole["removed"], 3)


@pytest.mark.parametrize(("members", "is_listed"), [(MAX_LISTED, True), (MAX_LISTED + 1, False)])
def test_the_whole_list_is_told_up_to_a_number(members: int, is_listed: bool) -> None:
    kept = kept_form(element(members, added=members))
    told = form_for("user00007", kept)
    assert ("subscribers" in told, len(newcomers(kept))) == (is_listed, members if is_listed else 0)
    assert (told["subscribers_count"], told["added_count"], "added" in told) == (members, members, False)


@pytest.mark.parametrize("name", ["Project X", "\N{CJK UNIFIED IDEOGRAPH-9879}" * 120])
@pytest.mark.parametrize(
    ("members", "added", "removed"), [(950, 900, 0), (100, 90, 9_000), (950, 1, 900), (10_000, 0, 8)]
)
def test_the_short_form_is_short_whatever_changes(name: str, members: int, added: int, removed: int) -> None:
    whole = element(members, added, removed, name)
    short = short_form(kept_form(whole))
    assert len(write_json(short).encode()) <= SHORT_BYTES
    assert short == short_form(whole)
    assert short["session_name"] == name
    for list_name, count in (("added", added), ("removed", removed)):
        assert short.get(f"{list_name}_count", len(short.get(list_name, ()))) == count


def test_few_people_are_named_though_many_others_are_not() -> None:
    short = short_form(element(950, added=2, removed=900))
    assert (short["added"], short["removed_count"]) == (people(0, 2), 900)


def test_a_long_name_costs_what_is_known_before_it_costs_who_was_added() -> None:
    short = short_form(element(950, added=1, name="x" * 320))
    assert (short["added"], "session_type" in short) == (people(0, 1), False)


def test_a_notice_of_the_previous_release_is_shortened_too() -> None:
    assert short_form(element(5))["subscribers_count"] == 5
    counted = {"session_id": "s1", "subscribers_count": 2_000, "subscribers_truncated": True, "removed": []}
    assert short_form(counted) == counted
    assert not newcomers(counted)
