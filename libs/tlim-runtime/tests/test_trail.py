"""The way of a message is found again among many, and the memory for it has a bound."""

from tlim_runtime.trail import Passed, Trail


def test_the_steps_of_a_message_have_the_times_of_their_batches() -> None:
    trail = Trail()
    trail.note(Passed.READ, ["m1", "m2"], [10, 11])
    trail.note(Passed.COMMITTED, ["m1", "m2"], 20)
    trail.note(Passed.DELIVERED, ["m2"], 30, "shard 3")
    assert list(trail.of("m2")) == [
        (Passed.READ, 11, ""),
        (Passed.COMMITTED, 20, ""),
        (Passed.DELIVERED, 30, "shard 3"),
    ]
    assert not list(trail.of("m3"))


def test_the_oldest_steps_are_forgotten() -> None:
    trail = Trail(kept=4)
    for number in range(10):
        trail.note(Passed.COMMITTED, [f"a{number}", f"b{number}"], number)
    kept = [number for number in range(10) if list(trail.of(f"a{number}"))]
    assert kept == [8, 9]
