"""What the bridges tell each other about delivery shards, in the stream TLIM_LEASES."""

from tlim_protocol.events import Event


class Lease(Event):
    """`tlim.lease.shard.<shard>`: which bridge has a delivery shard. Without an owner, the last one has given it up.

    No two values are the same: `number` counts what the bridge `writer` has written.
    """

    owner: str | None
    writer: str
    number: int


class BridgeBeat(Event):
    """`tlim.lease.bridge.<instance>`: a bridge can take shards, because it is connected to the XMPP server; or not."""

    is_there: bool
