"""Random people on a real system whose parts are disturbed at random: `python -m tests.torture SEED`."""

import argparse
import asyncio
import os
import pickle
import shutil
import sys
import tempfile
import time
import traceback
from pathlib import Path

from tests.torture.checker import Checker, Finding
from tests.torture.faults import Done
from tests.torture.plan import PEOPLE, plan_faults, plan_people
from tests.torture.report import summary, write_down
from tests.torture.run import Asked, Run
from tests.torture.system import running_system

XMPP = os.environ.get("TLIM_E2E_XMPP", "ejabberd")
MOST_LINES = 60


def say(text: str) -> None:
    """Print a line with the time."""
    sys.stdout.write(f"{time.strftime('%H:%M:%S')} {text}\n")
    sys.stdout.flush()


def main() -> int:
    """Run once. Returns 1 if something was wrong; then the stack's data and logs stay."""
    asked = _asked()
    home = Path(tempfile.mkdtemp(prefix=f"torture-{XMPP}-{asked.seed}-"))
    say(f"seed {asked.seed}, {asked.faults} faults, {XMPP}, in {home}")
    with running_system(home, XMPP, nodes=asked.nodes, bridges=asked.bridges, stores=asked.stores) as system:
        steps = plan_faults(asked.seed, asked.faults, system.parts)
        run = Run(system, Asked(asked.seed, plan_people(asked.seed, asked.people), steps, asked.settle), say)
        try:
            asyncio.run(run.go())
        except Exception:  # noqa: BLE001 - whatever it is, the faults before it are told
            run.book.wrong.append(f"the run broke off: {traceback.format_exc()}")
    checker = Checker(run.book)
    findings = checker.judge()
    rows = summary(asked.seed, XMPP, run.faults.done, checker)
    for name, value in rows:
        say(f"{name}: {value}")
    if findings:
        _complain(home, asked.seed, run.faults.done, findings)
        (home / "book.pickle").write_bytes(pickle.dumps(run.book))
        return 1
    shutil.rmtree(home)
    if asked.report:
        write_down(asked.report, rows)
    return 0


def _complain(home: Path, seed: int, done: list[Done], findings: list[Finding]) -> None:
    """Print what is wrong, and keep all of it beside the logs."""
    lines = [f"seed {seed}, {XMPP}", *map(str, done), *map(str, findings)]
    (home / "findings.txt").write_text("\n".join([*lines, ""]))
    for line in lines[: len(done) + 1 + MOST_LINES]:
        say(line)
    say(f"{len(findings)} wrong; the logs are in {home / 'logs'}, and all findings in {home / 'findings.txt'}")


def _asked() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.torture", description=__doc__)
    parser.add_argument("seed", type=int)
    parser.add_argument("--faults", type=int, default=200)
    parser.add_argument("--people", type=int, default=PEOPLE)
    nodes = 2 if XMPP == "ejabberd" else 1
    parser.add_argument("--nodes", type=int, default=nodes, help="nodes of ejabberd, in one cluster")
    parser.add_argument("--bridges", type=int, default=3)
    parser.add_argument("--stores", type=int, default=3)
    parser.add_argument("--settle", type=float, default=250, help="seconds until lost connections are ended by force")
    parser.add_argument("--report", type=Path, help="a page whose last section is replaced by the result")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
