"""Openfire is started only where its distribution is."""

from pathlib import Path

import pytest
from tlim_devstack.failures import StackError
from tlim_devstack.openfire import DISTRIBUTION
from tlim_devstack.stack import Stack


@pytest.mark.parametrize("given", [None, "", "/nowhere"])
def test_without_a_distribution_one_line_says_what_is_missing(
    given: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(DISTRIBUTION, raising=False)
    if given is not None:
        monkeypatch.setenv(DISTRIBUTION, given)

    with pytest.raises(StackError) as refusal:
        Stack(tmp_path, xmpp="openfire")

    wanted = "it must be the folder of an unpacked Openfire distribution"
    assert str(refusal.value) == f"TLIM_OPENFIRE_HOME is {(given or '')!r}: {wanted}"
