"""What several services count: without negative times, and without what another process counts now."""

from tlim_protocol.dead_letters import DeadCause, msg_id_in
from tlim_runtime.measures import ConsumerMetrics, StageTimes
from tlim_runtime.metrics import Metrics
from tlim_runtime.tracing import Stage


def test_a_stage_never_takes_less_than_nothing() -> None:
    metrics = Metrics()
    StageTimes(metrics, Stage.STORE).passed(Stage.STORE, -0.5)
    value = metrics.registry.get_sample_value
    assert value("tlim_message_stage_duration_seconds_sum", {"stage": "store"}) == 0
    assert value("tlim_message_stage_duration_seconds_count", {"stage": "store"}) == 1


def test_a_consumer_that_was_given_up_has_no_lag_here_any_more() -> None:
    metrics = Metrics()
    consumer = ConsumerMetrics(metrics, "xmpp-bridge-3")
    consumer.stopped()
    consumer.started(lambda: 7)
    asked = "tlim_consumer_lag_messages", {"consumer": "xmpp-bridge-3"}
    assert metrics.registry.get_sample_value(*asked) == 7
    consumer.stopped()
    assert metrics.registry.get_sample_value(*asked) is None


def test_dead_letters_are_counted_by_their_cause() -> None:
    metrics = Metrics()
    ConsumerMetrics(metrics, "message-store").buried(DeadCause.TOO_LARGE)
    labels = {"consumer": "message-store", "cause": "too-large"}
    assert metrics.registry.get_sample_value("tlim_dead_letters_total", labels) == 1


def test_the_msg_id_of_a_dead_letter_is_found_where_it_can_be_read() -> None:
    assert msg_id_in(b'{"envelope": {"msg_id": "m1"}}') == "m1"
    assert msg_id_in(b'{"msg_id": "m2"}') == "m2"
    for unreadable in (b"", b"{", b"[]", b'{"envelope": []}', b'{"msg_id": 1}', b"\xff", b"[" * 100_000):
        assert msg_id_in(unreadable) is None
