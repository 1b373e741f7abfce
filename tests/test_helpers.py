"""The helpers of the stories say what they found instead of what they expected, like the stories themselves."""

import pytest

from tests.e2e.views import Seen


def test_a_failed_assertion_of_a_helper_shows_what_was_compared() -> None:
    with pytest.raises(AssertionError, match=r"\[\] or False"):
        Seen.of({"body": [], "recalled": False})
