"""Replacing the key that signs tokens: three steps, in their order only."""

from pathlib import Path

import pytest
from tlim_admin.secret_files import SecretError, new_token_key
from tlim_admin.upkeep.token_keys import Step, rotate


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "token-signing-key.pem"
    path.write_text(new_token_key())
    return path


def test_a_new_key_is_published_before_it_signs_and_the_old_one_goes_last(file: Path) -> None:
    old = file.read_text()

    assert rotate(file, Step.ADD) == 2
    assert file.read_text().startswith(old)
    new = file.read_text().removeprefix(old)
    assert rotate(file, Step.USE) == 2
    assert file.read_text() == new + old
    assert rotate(file, Step.FORGET) == 1
    assert file.read_text() == new
    assert file.stat().st_mode & 0o777 == 0o400


def test_a_step_out_of_order_changes_nothing(file: Path) -> None:
    for step in (Step.USE, Step.FORGET):
        with pytest.raises(SecretError, match="add a new one first"):
            rotate(file, step)
    rotate(file, Step.ADD)
    two = file.read_text()
    with pytest.raises(SecretError, match="2 keys already"):
        rotate(file, Step.ADD)
    assert file.read_text() == two
