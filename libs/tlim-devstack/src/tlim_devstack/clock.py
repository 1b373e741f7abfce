"""A clock for tests of what happens after a long time."""


class Clock:
    """Time that passes when a test says so; in place of the module `time`."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def monotonic(self) -> float:
        return self.now
