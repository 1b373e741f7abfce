"""What a check finds, and how a check that fails is told."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from enum import StrEnum
from typing import NamedTuple


class State(StrEnum):
    """How it looks."""

    OK = "ok"
    WARNING = "warning"
    WRONG = "wrong"
    SKIPPED = "skipped"


class Finding(NamedTuple):
    """One thing that was looked at: what was seen, and what the operator has to change."""

    name: str
    state: State
    seen: str
    advice: str = ""


def fine(name: str, seen: str) -> Finding:
    """Return what is well."""
    return Finding(name, State.OK, seen)


def wrong(name: str, seen: str, advice: str) -> Finding:
    """Return what does not work."""
    return Finding(name, State.WRONG, seen, advice)


def doubtful(name: str, seen: str, advice: str) -> Finding:
    """Return what works, but not for long or not safely."""
    return Finding(name, State.WARNING, seen, advice)


def skipped(name: str, *variables: str) -> Finding:
    """Return what was not looked at, because the environment does not say where it is."""
    return Finding(name, State.SKIPPED, "not looked at", f"set {' and '.join(variables)}")


Check = Callable[[], Awaitable[list[Finding]]]

LOOKS = 3
"""How often we look at what seems wrong. A busy server answers too late once, and has time for us seconds later."""

PAUSE_S = 3.0
"""Longer than a ping of /readyz waits (2 s), so the next look asks anew."""


class NamedCheck(NamedTuple):
    """A check, and what to do if it fails altogether."""

    name: str
    check: Check
    advice: str


async def run_all(checks: Sequence[NamedCheck], pause_s: float = PAUSE_S) -> list[Finding]:
    """Run all checks, one after the other; those that find something wrong up to LOOKS times. The last look counts."""
    findings: dict[str, list[Finding]] = {}
    again = checks
    for look in range(LOOKS):
        for one in again:
            findings[one.name] = await run(*one)
        again = [one for one in again if any(finding.state is State.WRONG for finding in findings[one.name])]
        if not again or look == LOOKS - 1:
            break
        await asyncio.sleep(pause_s)
    return [finding for one in checks for finding in findings[one.name]]


async def run(name: str, check: Check, advice: str) -> list[Finding]:
    """Run a check. If it fails altogether, that is a finding, with this advice."""
    try:
        return await check()
    except Exception as error:  # noqa: BLE001 - every failure of a check is told, and the others go on
        words = str(error).splitlines() or [type(error).__name__]
        return [wrong(name, words[0][:300], advice)]
