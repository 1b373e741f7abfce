"""Settings for this package's tests."""

from hypothesis import settings

settings.register_profile("untimed", deadline=None)  # a busy machine is not a failure
settings.load_profile("untimed")
