"""The settings of message-store, from the environment."""

from datetime import timedelta
from typing import ClassVar

from pydantic import Field
from tlim_runtime.settings import DatabaseSettings, ServiceSettings

PARTITION_SPAN = 10_000_000
"""Seqs in a partition: so its indexes stay below a few GB, and few partitions hold a year."""


class Settings(ServiceSettings, DatabaseSettings):
    """The settings of message-store, prefixed with TLIM_."""

    service: ClassVar[str] = "message-store"

    batch_size: int = 500  # messages per transaction: larger batches do not raise the rate any more
    leadership_poll: timedelta = timedelta(seconds=1)  # how often a store looks whether it should take or give groups
    user_lookup_timeout: timedelta = timedelta(seconds=2)  # holds up the batch, so it stays far below ack_wait
    partition_span: int = Field(default=PARTITION_SPAN, ge=1_000)
    """How many seqs a partition of the log holds."""
    recall_window: timedelta = timedelta(seconds=120)  # how long a message may be taken back, by the server's clock
    read_to_all: int = Field(default=200, ge=1)  # in larger sessions only the authors hear who has read their messages
    keep_recalled_text: bool = False  # whether the audit of recalls keeps what was taken back
