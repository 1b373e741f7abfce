"""Waiting for the services, which do the work."""

import asyncio
from collections.abc import Sequence

from tlim_runtime.transactions import Connection

from tlim_admin.backup.manifest import BackupError
from tlim_admin.doctor.services import not_ready
from tlim_admin.http import ask
from tlim_admin.progress import Bar
from tlim_admin.upkeep.log import progress

PATIENCE_S = 60.0
"""Without any progress for this long nobody does the work: another store takes the upkeep within seconds."""

LONGEST_S = 600.0
"""Ten minutes of messages are published again within seconds, so something else is wrong then."""

_LOOK_EVERY_S = 0.5


async def indexed(connection: Connection, goal: int, bar: Bar) -> None:
    """Return when the log is indexed up to the seq `goal`. Raises BackupError when nothing moves."""
    waited, best = 0.0, -1
    while True:
        at = min((await progress(connection)).indexed, goal)
        bar.at(at, goal)
        if at >= goal:
            return
        waited = 0.0 if at != best else waited + _LOOK_EVERY_S
        if waited >= PATIENCE_S:
            raise BackupError(f"nothing has moved for {PATIENCE_S:.0f} s, at {at} of {goal}: does message-store run?")
        best = at
        await asyncio.sleep(_LOOK_EVERY_S)


async def ready(addresses: Sequence[str]) -> None:
    """Return when all these instances are ready, host:port each. Raises BackupError when that takes too long."""
    waiting, reason = list(addresses), ""
    for _ in range(int(LONGEST_S / _LOOK_EVERY_S)):
        reasons = [await _objection(address) for address in waiting]
        waiting = [address for address, one in zip(waiting, reasons, strict=True) if one]
        if not waiting:
            return
        reason = next(one for one in reasons if one)
        await asyncio.sleep(_LOOK_EVERY_S)
    raise BackupError(f"{waiting[0]} is not ready: {reason}")


async def _objection(address: str) -> str:
    try:
        answer = await ask(f"http://{address}/readyz")
    except OSError as error:
        return str(error)
    return "" if answer.status == 200 else not_ready(answer)
