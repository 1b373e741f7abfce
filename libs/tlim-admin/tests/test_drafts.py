"""A draft gets its name when all of it is on the disk, and nothing of others is flushed for it."""

import os
from pathlib import Path

import pytest
from tlim_admin.drafts import drafted
from tlim_admin.progress import steps


@pytest.fixture
def flushed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """The names of what is flushed, each relative to `tmp_path`, in order."""
    names: list[str] = []

    def flush(opened: int) -> None:
        names.append(os.path.relpath(Path(f"/proc/self/fd/{opened}").readlink(), tmp_path))

    def flush_the_machine() -> None:
        pytest.fail("the whole machine is flushed")

    monkeypatch.setattr(os, "fsync", flush)
    monkeypatch.setattr(os, "sync", flush_the_machine)
    return names


def test_a_folder_is_flushed_with_all_that_is_in_it_before_it_gets_its_name(tmp_path: Path, flushed: list[str]) -> None:
    with steps() as shown, drafted(tmp_path / "backup", shown) as draft:
        (draft / "objects" / "ab").mkdir(parents=True)
        (draft / "objects" / "ab" / "one").touch()
        (draft / "manifest.json").touch()

    inside = ("", "/manifest.json", "/objects", "/objects/ab", "/objects/ab/one")
    assert sorted(flushed[:-1]) == [f"backup.partial{one}" for one in inside]
    assert flushed[-1] == ".", "the new name itself"


def test_of_an_archive_only_the_archive_is_flushed(tmp_path: Path, flushed: list[str]) -> None:
    with steps() as shown, drafted(tmp_path / "alice.zip", shown) as draft:
        (draft / "profile.jsonl").touch()

    assert flushed == ["alice.zip.partial/content.zip", "."]
    assert [one.name for one in tmp_path.iterdir()] == ["alice.zip"]
