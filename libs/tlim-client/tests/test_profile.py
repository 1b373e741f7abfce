"""Profiles: private files, one person per terminal."""

import stat
from pathlib import Path

import pytest
from tlim_client.failures import ProfileError
from tlim_client.profile import Profile, Profiles, development_ca


def _profile(user: str) -> Profile:
    return Profile(user, "secret", "http://localhost:9090", "localhost", 5222, "example.org", None)


def test_a_profile_is_kept_for_its_owner_only(tmp_path: Path) -> None:
    profiles = Profiles.of_environment({"XDG_CONFIG_HOME": str(tmp_path)})
    profiles.save(_profile("alice"))

    (path,) = (tmp_path / "tlim" / "profiles").iterdir()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert profiles.load("alice") == _profile("alice")


def test_the_only_user_needs_no_name_and_among_several_one_must_be_named(tmp_path: Path) -> None:
    profiles = Profiles(tmp_path)
    with pytest.raises(ProfileError, match="nobody is logged in"):
        profiles.load(None)
    profiles.save(_profile("alice"))
    assert profiles.load(None).user == "alice"
    profiles.save(_profile("bob"))
    with pytest.raises(ProfileError, match="alice, bob"):
        profiles.load(None)
    with pytest.raises(ProfileError, match="carol is not logged in"):
        profiles.load("carol")


def test_a_name_that_is_no_user_id_opens_no_other_file(tmp_path: Path) -> None:
    with pytest.raises(ProfileError, match="is not a user id"):
        Profiles(tmp_path).load("../alice")


def test_a_damaged_profile_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "alice.json").write_text("{")
    with pytest.raises(ProfileError, match=r"damaged.*tlim login alice"):
        Profiles(tmp_path).load("alice")


def test_a_forgotten_user_is_gone(tmp_path: Path) -> None:
    profiles = Profiles(tmp_path)
    profiles.save(_profile("alice"))
    profiles.remove("alice")
    assert profiles.users() == []
    with pytest.raises(ProfileError):
        profiles.remove("alice")


def test_a_token_is_used_until_shortly_before_it_ends() -> None:
    assert _profile("alice").with_token("t", 3600).fresh_token == "t"
    assert _profile("alice").with_token("t", 30).fresh_token is None


def test_the_development_stack_s_authority_is_found_from_any_folder_below(tmp_path: Path) -> None:
    authority = tmp_path / ".tlim" / "secrets" / "ca.pem"
    authority.parent.mkdir(parents=True)
    authority.touch()
    below = tmp_path / "a" / "b"
    below.mkdir(parents=True)
    assert development_ca(below) == authority
    assert development_ca(tmp_path.parent) is None
