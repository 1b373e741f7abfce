"""Nothing is written for a shard when its lease does not hold, not even the rest of what has begun."""

import pytest
from tlim_runtime.outages import Unavailable
from xmpp_bridge import fence
from xmpp_bridge.component import ComponentDown
from xmpp_bridge.fence import FencedLine


class Connection:
    """Notes what is written. With the barrier of each write the lease gets older."""

    def __init__(self, writes: int) -> None:
        self.left = writes
        self.written: list[str] = []

    def check(self) -> None:
        if self.left == 0:
            raise Unavailable("the lease is over")

    def send(self, stanzas: str) -> None:
        self.written.append(stanzas)

    async def barrier(self) -> None:
        self.left -= 1


async def test_the_lease_is_looked_at_before_every_write(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fence, "WRITE_CHARACTERS", 1)
    connection = Connection(writes=2)
    line = FencedLine(connection, connection.check)
    with pytest.raises(Unavailable, match="lease"):
        await line.deliver(["a", "b", "c"])
    assert connection.written == ["a", "b"]
    with pytest.raises(Unavailable, match="lease"):
        line.send("d")
    assert connection.written == ["a", "b"]


async def test_what_a_lost_lease_has_written_is_not_taken_for_delivered() -> None:
    connection = Connection(writes=1)
    line = FencedLine(connection, connection.check)
    with pytest.raises(Unavailable, match="lease"):
        await line.deliver(["a"])
    assert connection.written == ["a"]


async def test_nothing_goes_over_the_next_connection() -> None:
    connection = Connection(writes=9)
    line = FencedLine(connection, connection.check)
    line.close()
    with pytest.raises(ComponentDown):
        line.send("a")
    assert connection.written == []
