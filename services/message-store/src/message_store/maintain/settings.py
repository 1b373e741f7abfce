"""The settings of maintenance: the database, with the role that owns the tables, and the policy of retention."""

from datetime import timedelta

from pydantic import Field, ValidationInfo, field_validator
from tlim_runtime.settings import DatabaseLogin

PARTITION_SPAN = 10_000_000
"""Seqs in a partition: so its indexes stay below a few GB, and few partitions hold a year."""


class MaintenanceSettings(DatabaseLogin):
    """The settings of `python -m message_store.maintain`, prefixed with TLIM_; durations as `P365D`.

    The role is that of migrations: dropping a partition is the owner's right.
    """

    partition_span: int = Field(default=PARTITION_SPAN, ge=1_000)
    retain_messages: timedelta | None = None  # older messages go, with all that belongs to them; None: kept for ever
    retain_recalls: timedelta | None = None  # the audit of recalls, kept at least as long as messages; None: for ever

    @field_validator("retain_messages", "retain_recalls")
    @classmethod
    def _at_least_a_day(cls, value: timedelta | None) -> timedelta | None:
        if value is not None and value < timedelta(days=1):
            raise ValueError("less than a day: this would remove what has hardly been delivered")
        return value

    @field_validator("retain_recalls")
    @classmethod
    def _not_before_the_messages(cls, value: timedelta | None, info: ValidationInfo) -> timedelta | None:
        messages = info.data.get("retain_messages")
        if value is not None and (messages is None or value < messages):
            raise ValueError("the audit of recalls has to be kept at least as long as messages")
        return value
