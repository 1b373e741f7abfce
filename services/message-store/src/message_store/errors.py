"""This service's own errors, besides the coded refusals of the protocol library."""


class DirectoryUnavailable(Exception):  # noqa: N818 - named for what is the case, like BrokerUnavailable
    """Another service did not answer. Messages that depend on the answer shall be sent again; all others go on."""


class RowRefused(Exception):  # noqa: N818 - a verdict, not a failure
    """PostgreSQL cannot store a value of a statement, or cannot take it as a parameter; it gives the reason itself."""
