"""Fixtures that the tests of every package share: real servers, clean data per test."""

import pytest
from hypothesis import HealthCheck, settings

# How long anything takes is no reason to fail: a machine may be busy.
settings.register_profile("tlim", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("tlim")

# Also in modules that are no tests, a failed comparison shows both sides.
pytest.register_assert_rewrite("tests.e2e.clients", "tests.e2e.model", "tests.e2e.views", "tests.e2e.world")

pytest_plugins = ["tlim_devstack.pytest_plugin"]
