"""supervisord, as it is started here: it outlives a full disk, on which its own log files stand.

What cannot be written down is dropped. As it comes, supervisord prints such a failure on stderr. Ours is a file on the
same disk, so that failed as well, and supervisord ended with all its programs.
"""

from contextlib import suppress
from typing import IO

from supervisor import loggers, supervisord


class LogFile(loggers.RotatingFileHandler):  # type: ignore[misc]  # supervisor has no types
    """A log file that loses lines rather than its program."""

    stream: IO[bytes]

    def emit(self, record: object) -> None:
        """Write one record, or drop it."""
        try:
            super().emit(record)
        except (OSError, ValueError):  # while it was rotated; ValueError: such a failure has left it closed
            with suppress(OSError, ValueError):
                self.stream.close()
            self.closed = True
            with suppress(OSError):
                self.reopen()

    def close(self) -> None:
        """Close the file, with what was not written; reopening begins with that."""
        with suppress(OSError):
            super().close()


def _drop(_handler: object) -> None:
    """Do nothing about a record that could not be written."""


if __name__ == "__main__":
    loggers.Handler.handleError = _drop
    loggers.RotatingFileHandler = LogFile
    supervisord.main()
