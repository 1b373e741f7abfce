"""What operators get over HTTP. Times are epoch milliseconds."""

from pydantic import BaseModel
from tlim_protocol.operations import InstanceReport


class Snapshot(BaseModel):
    """All instances at one time; `at` on the clock of the instance that asked them."""

    at: int
    reports: list[InstanceReport]


class DeadLetter(BaseModel):
    """A message that could not be processed. It came from `subject`; `seq` is its place among the dead letters."""

    seq: int
    at: int
    subject: str
    cause: str
    reason: str
    size: int
    msg_id: str | None


class DeadLetters(BaseModel):
    """A page of dead letters, newest first; `next_before`: where the next page begins, None at the end."""

    items: list[DeadLetter]
    next_before: int | None


class LogEntry(BaseModel):
    """What the log has of a message. Nothing of its text."""

    seq: int
    sender: str
    msg_type: str
    conversation_id: str
    stored_at: int
    recalled_at: int | None
    received: int
    first_received_at: int | None
    last_received_at: int | None
    read: int
    first_read_at: int | None


class WayStep(BaseModel):
    """A step of the message, and the instance that took or saw it."""

    at: int
    step: str
    service: str
    instance: str
    detail: str


class MessageWay(BaseModel):
    """The way of a message: what the log has of each sender's message with this msg_id, and what instances remember."""

    msg_id: str
    rows: list[LogEntry]
    steps: list[WayStep]
