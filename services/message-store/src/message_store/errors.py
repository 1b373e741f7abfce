"""This service's own errors, besides the coded refusals of the protocol library."""

from collections.abc import Collection

from tlim_runtime.outages import DatabaseUnavailable, Unavailable


class DirectoryUnavailable(Unavailable):
    """Another service did not answer. Messages that depend on the answer shall be sent again; all others go on."""


class ItemRefused(Exception):  # noqa: N818 - a verdict, not a failure
    """A batch holds something that can never be stored; the text says why.

    PostgreSQL cannot hold what a statement wants to write, or our own rules fail on it.
    """


class SurveyOutdated(ItemRefused):
    """Somebody else has written, since we looked, what a statement wants to write. So look again."""


class OthersWereFaster(DatabaseUnavailable):
    """Other stores have changed, since we looked, what the plan rests on: `session_ids`, or a message with a file.

    Nothing is wrong with the batch. Look again; and if that does not end, let the batch come again.
    """

    def __init__(self, reason: str, session_ids: Collection[str] = ()) -> None:
        super().__init__(reason)
        self.session_ids = session_ids


class StatementTooSlow(DatabaseUnavailable):
    """PostgreSQL has cancelled a statement that took too long. What the statement named may be the reason."""
