"""What the instances of a service tell each other about rate limits."""

from tlim_protocol.events import Event


class LimitCounts(Event):
    """`tlim.limit.<service>`: what an instance has counted under the keys of one limit since it last told of them.

    A negative count takes back what was told before.
    """

    instance: str
    limit: str
    counts: dict[str, int]
