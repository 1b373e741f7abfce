"""Fixtures that the tests of every package share: real servers, clean data per test."""

pytest_plugins = ["tlim_devstack.pytest_plugin"]
