"""Who may take a shard and when, and how many each bridge has; the clock is the test's."""

import pytest
from tlim_protocol.leases import Lease
from xmpp_bridge.shares import HELD_S, SILENT_S, Book, LeaseLapsed


class Clock:
    """Stands still until a test moves it."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def book(clock: Clock) -> Book:
    return Book("me", 8, clock)


def lease(owner: str | None, number: int = 1) -> Lease:
    return Lease(owner=owner, writer=owner or "somebody", number=number)


def test_a_shard_that_never_had_an_owner_is_free_at_once(book: Book) -> None:
    book.see(3, None)
    assert book.wanted() == [3]


def test_a_shard_that_was_given_up_is_free_at_once(book: Book) -> None:
    book.see(3, lease(None))
    assert book.wanted() == [3]


def test_a_shard_is_free_when_it_was_not_renewed_for_the_whole_time(book: Book, clock: Clock) -> None:
    book.see(3, lease("other"))
    clock.now += SILENT_S - 0.01
    assert book.wanted() == []
    book.see(3, lease("other", 2))
    clock.now += SILENT_S - 0.01
    assert book.wanted() == []
    clock.now += 0.02
    assert book.wanted() == [3]


def test_to_see_the_same_lease_again_does_not_make_it_younger(book: Book, clock: Clock) -> None:
    book.see(3, lease("other"))
    clock.now += SILENT_S
    book.see(3, lease("other"))
    assert book.wanted() == [3]


def test_a_lease_lapses_before_anybody_else_may_take_it(book: Book, clock: Clock) -> None:
    held = book.take(3, seq=7, begun=clock.now)
    clock.now += HELD_S - 0.01
    held.check()
    clock.now += 0.01
    with pytest.raises(LeaseLapsed):
        held.check()
    assert HELD_S < SILENT_S


def test_a_lease_that_has_lapsed_holds_again_when_it_is_renewed(book: Book, clock: Clock) -> None:
    held = book.take(3, seq=7, begun=clock.now)
    clock.now += 10
    held.renewed(8, begun=clock.now)
    held.check()


def test_a_lease_that_was_renewed_slowly_counts_from_the_beginning_of_the_renewal(book: Book, clock: Clock) -> None:
    held = book.take(3, seq=7, begun=clock.now)
    begun = clock.now
    clock.now += HELD_S
    held.renewed(8, begun)
    assert not held.is_valid


def test_a_lease_that_was_given_up_is_over_at_once(book: Book, clock: Clock) -> None:
    held = book.take(3, seq=7, begun=clock.now)
    book.end(3)
    with pytest.raises(LeaseLapsed):
        held.check()


@pytest.mark.parametrize("bridges", range(1, 12))
def test_the_shares_make_up_all_shards_and_differ_by_at_most_one(bridges: int, clock: Clock) -> None:
    names = [f"bridge {number}" for number in range(bridges)]
    shares = []
    for me in names:
        book = Book(me, 8, clock)
        for name in names:
            book.beat(name, is_there=True)
        shares.append(book.share())
    assert sum(shares) == 8
    assert max(shares) - min(shares) <= 1


@pytest.mark.parametrize("bridges", range(1, 9))
def test_a_bridge_that_joins_makes_nobody_take_more(bridges: int, clock: Clock) -> None:
    names = [f"bridge {number}" for number in range(bridges)]
    for me in names:
        book = Book(me, 8, clock)
        for name in names:
            book.beat(name, is_there=True)
        before = book.share()
        book.beat("bridge 00", is_there=True)
        assert book.share() <= before


def test_a_bridge_that_is_silent_or_says_goodbye_has_no_share(book: Book, clock: Clock) -> None:
    book.beat("one", is_there=True)
    book.beat("other", is_there=True)
    book.beat("other", is_there=False)
    assert book.share() == 4
    clock.now += SILENT_S
    assert book.share() == 8


def test_what_is_over_the_share_is_given_up(book: Book, clock: Clock) -> None:
    for shard in range(8):
        book.take(shard, seq=shard, begun=clock.now)
    assert book.surplus() == []
    book.beat("other", is_there=True)
    assert len(book.surplus()) == 4
    for held in book.surplus():
        book.end(held.shard)
    assert len(book.held) == 4
    assert book.surplus() == []
