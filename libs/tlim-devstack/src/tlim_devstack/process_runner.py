"""supervisord, changed so that it survives a full disk: log lines that cannot be written are dropped.

The original prints such a failure on stderr. Our stderr is a file on the same disk, so printing failed as well. Then
supervisord ended, and all its programs with it.
"""

from contextlib import suppress
from typing import IO

from supervisor import loggers, supervisord


class LogFile(loggers.RotatingFileHandler):  # type: ignore[misc]  # supervisor has no types
    """A log file that drops lines on a full disk, so that the program goes on."""

    stream: IO[bytes]

    def emit(self, record: object) -> None:
        """Write one record, or drop it."""
        try:
            super().emit(record)
        except (OSError, ValueError):  # rotation failed; ValueError: an earlier failure has left the file closed
            with suppress(OSError, ValueError):
                self.stream.close()
            self.closed = True
            with suppress(OSError):
                self.reopen()

    def close(self) -> None:
        """Close the file, also if its last lines cannot be written. Reopening starts with a close."""
        with suppress(OSError):
            super().close()


def _drop(_handler: object) -> None:
    """Ignore a record that could not be written."""


if __name__ == "__main__":
    loggers.Handler.handleError = _drop
    loggers.RotatingFileHandler = LogFile
    supervisord.main()
