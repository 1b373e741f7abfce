"""Metrics that several parts of one process share."""

from tlim_runtime.metrics import Metrics


def test_a_name_that_is_registered_again_counts_on() -> None:
    metrics = Metrics()
    for _ in range(2):
        metrics.counter("tlim_things_total", "Things").inc()
        metrics.gauge("tlim_room", "Room").inc()
        metrics.histogram("tlim_thing_seconds", "Seconds of a thing").observe(1)
    names = ("tlim_things_total", "tlim_room", "tlim_thing_seconds_count")
    assert [metrics.registry.get_sample_value(name) for name in names] == [2, 2, 2]
