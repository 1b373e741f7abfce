"""The environment that the stack was started with."""

import os
from collections.abc import Mapping

from tlim_runtime.variables import SECRET_FILES, SECRETS, mistyped, mistyped_line

from tlim_devstack.failures import StackError


def check_names(environment: Mapping[str, str] = os.environ) -> None:
    """Raise StackError for TLIM_ variables that nobody reads."""
    problems = [mistyped_line(*pair) for pair in mistyped(environment).items()]
    if problems:
        raise StackError("; ".join(problems))


def inherited(environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return the part of the environment that programs of the stack get: the stack gives them secrets of its own."""
    return {name: value for name, value in environment.items() if name.upper() not in SECRETS | SECRET_FILES}
