"""Structured logs: one JSON object per line on stdout, for our own records and those of libraries alike."""

import logging
import sys
import time
from collections import deque
from typing import Any

import structlog
from structlog.tracebacks import ExceptionDictTransformer
from structlog.typing import EventDict, Processor, WrappedLogger

NAMED_IN_LOG = 20
"""So many messages of a batch are named in a line of the log."""

_TRACEBACKS = structlog.processors.ExceptionRenderer(
    ExceptionDictTransformer(show_locals=False, max_frames=30)  # locals hold tokens, passwords and people's messages
)


def configure_logging(service: str, level: str = "INFO") -> None:
    """Send every log record of this process to stdout as JSON with `service`, `level`, `timestamp` and `event`.

    Values bound with `structlog.contextvars.bind_contextvars` (request_id, msg_id) are on every line. Lines of
    libraries that use the standard logging module have them, too.
    """
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        _adds_service(service),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _keep_errors,
    ]
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.PositionalArgumentsFormatter(),
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                _TRACEBACKS,
                structlog.processors.JSONRenderer(ensure_ascii=False),
            ],
        )
    )
    logging.basicConfig(handlers=[handler], level=level.upper(), force=True)
    logging.captureWarnings(capture=True)
    _quieten_libraries()


def log_to_stderr() -> None:
    """Let a command's log go to stderr, in lines for people: its stdout is for what it prints."""
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))


def get_logger(name: str) -> structlog.stdlib.BoundLogger:
    """Return the structured logger of a module, named by its `__name__`."""
    logger: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(name)
    return logger


_LAST: deque[tuple[int, str, str, dict[str, str]]] = deque(maxlen=50)  # what an operator looks at first
_LEVELS = frozenset({"warning", "error", "critical"})
_LONGEST = 300
_COMMON = frozenset({"event", "level", "logger", "service", "timestamp", "exc_info"})


def last_errors() -> list[tuple[int, str, str, dict[str, str]]]:
    """Return the last warnings and errors of this process: epoch milliseconds, level, event, other values as text."""
    return list(_LAST)


def _keep_errors(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    if event.get("level") in _LEVELS:
        detail = {key: str(value)[:_LONGEST] for key, value in event.items() if key[:1] != "_" and key not in _COMMON}
        _LAST.append((time.time_ns() // 1_000_000, event["level"], str(event.get("event"))[:_LONGEST], detail))
    return event


def _adds_service(service: str) -> Processor:
    def add(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
        event["service"] = service
        return event

    return add


def _quieten_libraries() -> None:
    # httpx logs a line for each request. nats-py also reports through its callbacks, which log already.
    for name in ("httpx", "httpcore", "nats"):
        logging.getLogger(name).setLevel(logging.WARNING)
    # requests.FailureBoundary has logged the failure with its request id. uvicorn would print the traceback again.
    logging.getLogger("uvicorn.error").addFilter(_is_not_repeated)


def _is_not_repeated(record: logging.LogRecord) -> bool:
    message: Any = record.msg
    return not (isinstance(message, str) and message.startswith("Exception in ASGI application"))
