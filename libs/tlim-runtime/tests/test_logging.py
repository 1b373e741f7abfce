import json
import logging
from collections.abc import Iterator

import pytest
import structlog
from structlog.contextvars import bound_contextvars
from tlim_runtime.logging import configure_logging, get_logger


@pytest.fixture(autouse=True)
def restored_logging() -> Iterator[None]:
    """Give the test session its own logging back."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(capture=False)
    structlog.reset_defaults()


def lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, object]]:
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_our_records_and_those_of_libraries_are_json_lines_with_what_was_bound(
    capsys: pytest.CaptureFixture[str],
) -> None:
    configure_logging("sample", "info")
    with bound_contextvars(request_id="r-1"):
        get_logger("ours").info("stored", msg_id="m-1", text="你好")
        logging.getLogger("theirs").warning("slow %s", "query")
    get_logger("ours").debug("hidden")
    ours, theirs = lines(capsys)
    assert ours["event"] == "stored"
    assert (ours["service"], ours["level"], ours["logger"]) == ("sample", "info", "ours")
    assert (ours["msg_id"], ours["request_id"], ours["text"]) == ("m-1", "r-1", "你好")
    assert "timestamp" in ours
    assert (theirs["event"], theirs["request_id"]) == ("slow query", "r-1")


def test_a_traceback_is_part_of_the_line_and_holds_no_local_variables(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("sample")

    def fail() -> int:
        password = "hunter" + "2"
        return len(password) // 0

    try:
        fail()
    except ZeroDivisionError:
        get_logger("ours").exception("failed")
    (line,) = lines(capsys)
    assert "ZeroDivisionError" in json.dumps(line["exception"])
    assert "hunter2" not in json.dumps(line)


def test_a_failure_that_was_logged_is_not_logged_again_by_the_web_server(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("sample")
    logging.getLogger("uvicorn.error").error("Exception in ASGI application\n")
    logging.getLogger("uvicorn.error").error("address already in use")
    assert [line["event"] for line in lines(capsys)] == ["address already in use"]
