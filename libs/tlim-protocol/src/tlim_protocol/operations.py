"""The payloads between the operations view and all instances, over NATS."""

from pydantic import Field

from tlim_protocol.events import Event
from tlim_protocol.identity import MAX_ID


class Sample(Event):
    """A value of a metric, as Prometheus would get it."""

    name: str
    labels: dict[str, str]
    value: float


class LogLine(Event):
    """A warning or an error of an instance's log; `at` in epoch milliseconds."""

    at: int
    level: str
    event: str
    detail: dict[str, str]


class InstanceReport(Event):
    """Answer of `tlim.rpc.operations.report`, whose request is empty: every instance says what it is and how it is.

    `checks` are the lines of its /readyz; times in epoch milliseconds on its clock.
    """

    service: str
    instance: str
    version: str
    started_at: int
    at: int
    checks: dict[str, str]
    warnings: dict[str, str]
    samples: list[Sample]
    errors: list[LogLine]


class TrailQuestion(Event):
    """Request of `tlim.rpc.operations.trail`: the steps of a message, as far as an instance remembers them."""

    msg_id: str = Field(min_length=1, max_length=MAX_ID)


class TrailStep(Event):
    """A step of a message (tlim_runtime.trail.Passed); `at` in epoch milliseconds."""

    step: str
    at: int
    detail: str


class TrailAnswer(Event):
    """Answer of `tlim.rpc.operations.trail`, from every instance."""

    service: str
    instance: str
    steps: list[TrailStep]
