"""Fixtures that the tests of every package share: real servers, clean data per test."""

import pytest

# Also in modules that are no tests, a failed comparison shows both sides.
pytest.register_assert_rewrite("tests.e2e.clients", "tests.e2e.model", "tests.e2e.views", "tests.e2e.world")

pytest_plugins = ["tlim_devstack.pytest_plugin"]
