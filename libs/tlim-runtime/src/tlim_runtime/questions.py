"""Questions of one service to another over NATS: how they are sent and answered. Used by broker.py only."""

import contextlib
from collections.abc import Awaitable, Callable

import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg

from tlim_runtime.background import cancellable
from tlim_runtime.logging import get_logger
from tlim_runtime.outages import BrokerUnavailable, NoAnswerInTime, Unavailable
from tlim_runtime.pulse import beat
from tlim_runtime.tracing import TRACEPARENT, Headers, Tracing, continued, trace_of

logger = get_logger(__name__)

Responder = Callable[[bytes], Awaitable[bytes]]

_ERROR_HEADER = "Tlim-Error"


async def ask(client: Client, subject: str, payload: bytes, timeout_s: float, headers: Headers) -> bytes:
    """Return the answer; raises NoAnswerInTime, or BrokerUnavailable with the responder's own reason or another."""
    try:
        sent = dict(headers) if headers else None
        answer = await cancellable(client.request(subject, payload, timeout=timeout_s, headers=sent))
    except TimeoutError as error:  # nats-py's own is one as well
        raise NoAnswerInTime(f"no answer on {subject} within {timeout_s:g} s") from error
    except nats.errors.Error as error:
        raise BrokerUnavailable(f"no answer on {subject}: {type(error).__name__}") from error
    finally:
        beat()
    failure = (answer.headers or {}).get(_ERROR_HEADER)
    if failure:
        raise BrokerUnavailable(f"{subject}: {failure}")
    return bytes(answer.data)


async def respond(tracing: Tracing, handler: Responder, message: Msg) -> None:
    """Answer a question, as a step of the asker's trace if it has one; say so if `handler` fails."""
    traceparent, message.headers = (message.headers or {}).get(TRACEPARENT), None  # nats-py answers with these headers
    try:
        with continued(tracing.answer(message.subject, traceparent)):
            answer = await handler(message.data)
    except Unavailable as error:
        trace = trace_of(traceparent)
        logger.warning("a request could not be answered now", subject=message.subject, reason=str(error), **trace)
        answer, message.headers = b"", {_ERROR_HEADER: type(error).__name__}
    except Exception as error:
        logger.exception("a request could not be answered", subject=message.subject, **trace_of(traceparent))
        answer, message.headers = b"", {_ERROR_HEADER: type(error).__name__}
    with contextlib.suppress(nats.errors.Error):  # nobody waits for an answer, or the connection is gone
        await message.respond(answer)
