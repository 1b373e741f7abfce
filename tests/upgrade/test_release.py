"""The code of an earlier release comes out of git. Without its history one line says how to get it."""

import subprocess
from pathlib import Path

import pytest

from tests.upgrade import release
from tests.upgrade.release import NoHistoryError, extract, files


def git(folder: Path, *arguments: str) -> str:
    whole = ["git", "-C", str(folder), "-c", "user.name=a", "-c", "user.email=a@example.org", *arguments]
    return subprocess.run(whole, capture_output=True, text=True, check=True).stdout.strip()  # noqa: S603


def test_a_release_is_taken_out_of_the_history_and_a_shallow_clone_says_what_it_lacks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, shallow, tree = (tmp_path / name for name in ("whole", "shallow", "tree"))
    for folder in (whole, tree):
        folder.mkdir()
    git(whole, "init", "--quiet")
    for name in ("before", "now"):
        (whole / name).touch()
        git(whole, "add", name)
        git(whole, "commit", "--quiet", "--message", name)
    before = git(whole, "rev-parse", "HEAD~1")
    git(tmp_path, "clone", "--quiet", "--depth", "1", whole.as_uri(), str(shallow))

    monkeypatch.setattr(release, "ROOT", whole)
    extract(before, tree)
    assert files(before) == [one.name for one in tree.iterdir()] == ["before"]
    monkeypatch.setattr(release, "ROOT", shallow)
    with pytest.raises(NoHistoryError, match=rf"^the release before is not in .*git fetch --depth 1 origin {before}$"):
        extract(before, tree)
    git(shallow, "fetch", "--quiet", "--depth", "1", "origin", before)
    assert files(before) == ["before"]
