"""A server owns its directory, and can put links there: they give it no file of ours, and we write through none."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from tlim_devstack import nats, s3
from tlim_devstack.privileges import hand_over, user_of


@pytest.fixture
def of_ours(tmp_path: Path) -> Path:
    """A file that is none of the server's."""
    file = tmp_path / "shadow"
    file.write_text("of ours")
    return file


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_a_link_in_a_directory_that_is_handed_over_gives_nothing_away(tmp_path: Path, of_ours: Path) -> None:
    link = tmp_path / "server" / "data" / "link"
    link.parent.mkdir(parents=True)
    link.symlink_to(of_ours)
    hand_over(tmp_path / "server", "nats")
    assert of_ours.stat().st_uid == 0
    assert {link.lstat().st_uid, link.parent.stat().st_uid} == {user_of("nats")}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_a_second_name_in_a_directory_that_is_handed_over_gives_nothing_away(tmp_path: Path, of_ours: Path) -> None:
    (tmp_path / "server").mkdir()
    (tmp_path / "server" / "name").hardlink_to(of_ours)
    hand_over(tmp_path / "server", "nats")
    assert of_ours.stat().st_uid == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_what_an_older_release_kept_as_another_user_is_handed_over(tmp_path: Path) -> None:
    file = tmp_path / "server" / "data" / "file"
    file.parent.mkdir(parents=True)
    file.touch()
    os.chown(file, user_of("initdb"), user_of("initdb"))
    hand_over(tmp_path / "server", "nats")
    assert {path.stat().st_uid for path in (file, *file.parents[:2])} == {user_of("nats")}


def write_nats(directory: Path) -> Path:
    return nats.write_config(directory, {"tests": "x"})


def write_s3(directory: Path) -> Path:
    return s3.write_identities(directory, [])


@pytest.mark.parametrize(
    ("write", "name"),
    [
        (write_nats, "nats.conf"),
        (write_nats, "nats.new"),
        (write_nats, "users.conf"),
        (write_nats, "users.new"),
        (write_s3, "identities.json"),
        (write_s3, "identities.new"),
    ],
)
def test_a_link_in_place_of_a_configuration_is_replaced_and_not_followed(
    tmp_path: Path, of_ours: Path, write: Callable[[Path], Path], name: str
) -> None:
    link = tmp_path / "server" / name
    link.parent.mkdir()
    link.symlink_to(of_ours)
    assert not write(link.parent).is_symlink()
    assert of_ours.read_text() == "of ours"
