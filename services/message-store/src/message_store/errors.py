"""The failures that this service has names for, besides the coded refusals of the protocol library."""


class DirectoryUnavailable(Exception):  # noqa: N818 - named for what is the case, like BrokerUnavailable
    """A service did not say what only it knows; what depends on that shall be sent again, the rest goes on."""


class RowRefused(Exception):  # noqa: N818 - a verdict, not a failure
    """PostgreSQL cannot hold what a statement wants to write, or be asked for it; the reason is its own sentence."""
