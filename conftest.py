"""Fixtures that the tests of every package share: real servers, clean data per test."""

import pytest

pytest.register_assert_rewrite("tests.e2e")  # also in modules that are no tests, a failed comparison shows both sides

pytest_plugins = ["tlim_devstack.pytest_plugin"]
