"""What is done again and again does a part in each round, so that a success is seen while much still waits."""

import asyncio
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from file_api.inspect.inspection import Facts, Inspected
from file_api.inspect.inspector import Inspector
from file_api.keep import disposal, quarantine
from file_api.keep.clamd import Clamd
from file_api.keep.storage import Storage, StorageUnavailable

SOON = timedelta(seconds=0.01)
RECORDINGS = [b"#!AMR\n\x3c" + bytes(31) + bytes([number]) for number in range(2)]


class Step:
    """Fails each time at first. Then it succeeds once, and the next time it does not come to an end."""

    def __init__(self, world: Any, due_again: str, result: object) -> None:
        self._world, self._due_again, self._result = world, due_again, result
        self.is_away = True
        self.begun = 0

    async def __call__(self, *_: object) -> object:
        if self.is_away:
            await self._world.rows(self._due_again)
            raise StorageUnavailable("away")
        self.begun += 1
        if self.begun > 1:
            await asyncio.Event().wait()
        return self._result


@pytest.mark.parametrize(
    ("work", "changed_settings", "step_of", "due_again", "result"),
    [
        (
            "examine", {"examine_interval": SOON}, (Inspector, "inspect"),
            "UPDATE blobs SET facts_due_at = now() WHERE facts_due_at IS NOT NULL", Inspected(Facts()),
        ),
        (
            "scan 0", {"scan_interval": SOON, "scans_at_once": 1, "clamd_socket": Path("/nowhere")}, (Clamd, "scan"),
            "UPDATE blobs SET scan_due_at = now() WHERE scan = 'waiting'", None,
        ),
        ("sweep", {"sweep_interval": SOON}, (Storage, "discard"), "UPDATE discarded SET not_before = now()", None),
    ],
    ids=["examine", "scan", "sweep"],
)  # fmt: skip
async def test_that_it_works_again_is_seen_before_all_is_done(
    *, world: Any, eventually: Any, monkeypatch: pytest.MonkeyPatch,
    work: str, step_of: tuple[type, str], due_again: str, result: object,
) -> None:  # fmt: skip
    def failing() -> float:
        seconds: float = world.app.state.metrics.registry.get_sample_value("tlim_work_failing_seconds", {"work": work})
        return seconds

    async def fails() -> None:
        assert failing() > 0

    async def does_the_next() -> None:
        assert step.begun == 2

    step = Step(world, due_again, result)
    monkeypatch.setattr(*step_of, step)
    monkeypatch.setattr(quarantine, "SOON", timedelta(0))
    monkeypatch.setattr(disposal, "MOST_SWEPT", 1)
    await world.rows("INSERT INTO discarded VALUES ('files/aa/one', now()), ('files/bb/other', now())")
    async with world.client("alice") as alice:
        for content in RECORDINGS:
            assert (await alice.post("/v1/files", content=content)).is_success
    await eventually(fails)
    step.is_away = False
    await eventually(does_the_next)
    assert failing() == 0
