"""Exceptions that mean 'a system we depend on is away, try again'. They are never a mistake of the caller."""


class Unavailable(Exception):  # noqa: N818 - it names the situation
    """A dependency could not do it now. HTTP answers 503 with error-010. A consumer waits and tries again."""


class BrokerUnavailable(Unavailable):
    """NATS did not take or answer a message in time.

    It may have arrived: whoever repeats it gives it the same message id, or has a receiver that takes a second copy.
    """


class NoAnswerInTime(BrokerUnavailable):
    """Somebody listens for the question and does not answer: the asker has waited for the whole time.

    Without a listener NATS says so at once.
    """


class DatabaseUnavailable(Unavailable):
    """PostgreSQL is away, restarting, out of connections, or gave up on a lock; the transaction was rolled back.

    One case is uncertain: if the connection breaks during the commit, the commit may have happened.
    """
