"""The operations view waits for every instance that answered lately, and not for ever for one that has gone."""

from typing import Any, cast

import pytest
from message_store.operate import watch
from message_store.operate.watch import ROUNDS, Watch
from tlim_protocol.operations import InstanceReport


def _report(instance: str) -> bytes:
    what = {"version": "1", "started_at": 0, "at": 0, "checks": {}, "warnings": {}, "samples": [], "errors": []}
    return InstanceReport(service="message-store", instance=instance, **cast("Any", what)).to_bytes()


class TwoInstances:
    """The second instance answers only to those who wait for it; while it hangs, to nobody."""

    def __init__(self) -> None:
        self.hangs = False
        self.expected: list[int | None] = []

    async def answers(self, _broker: object, _subject: str, _payload: bytes, expected: int | None) -> list[bytes]:
        self.expected.append(expected)
        is_waited_for = expected is None or expected > 1
        names = ["one", "two"] if is_waited_for and not self.hangs else ["one"]
        return [_report(name) for name in names]


@pytest.fixture
def instances(monkeypatch: pytest.MonkeyPatch) -> TwoInstances:
    two = TwoInstances()
    monkeypatch.setattr(watch, "ask_all", two.answers)
    monkeypatch.setattr(watch, "FRESH_S", 0)
    return two


@pytest.fixture
def view() -> Watch:
    return Watch(cast("Any", None), cast("Any", None))  # neither broker nor database is asked for a snapshot


async def seen_in(view: Watch) -> list[str]:
    return [report.instance for report in (await view.snapshot()).reports]


async def test_an_instance_that_was_late_once_is_on_the_page_again(instances: TwoInstances, view: Watch) -> None:
    assert await seen_in(view) == ["one", "two"]
    instances.hangs = True
    for _ in range(ROUNDS - 1):
        assert await seen_in(view) == ["one"]
    instances.hangs = False
    assert await seen_in(view) == ["one", "two"]


async def test_an_instance_that_has_gone_is_no_longer_waited_for(instances: TwoInstances, view: Watch) -> None:
    await seen_in(view)
    instances.hangs = True
    for _ in range(ROUNDS + 1):
        await seen_in(view)
    assert instances.expected == [None, *[2] * ROUNDS, 1]
