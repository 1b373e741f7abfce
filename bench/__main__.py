"""`make bench`: measure tlim beside what a team would pick instead, and write docs/performance.md and docs/scaling.md.

    python -m bench [--only one_to_one] [--seconds 10] [--repeats 5] [--page docs/performance.md]

Everything runs on this machine, over loopback. Nothing else should run on it meanwhile.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from bench import fanout, files, growth, http_requests, latency, one_to_one, page, scaling, tracing
from bench.comparing import Effort, Section

BENCHES: dict[str, Callable[[Effort, Path], Section]] = {
    "one_to_one": one_to_one.measure,
    "latency": latency.measure,
    "tracing": tracing.measure,
    "http_requests": http_requests.measure,
    "files": files.measure,
    "fanout": fanout.measure,
    "growth": growth.measure,
    "scaling": scaling.measure,
}
PAGES = {"scaling": "scaling.md"}
"""Benches with a page of their own, beside the others' page."""


def main() -> None:
    """Read the command line, and do the benches one after the other. Each is written to the page when it is done."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=BENCHES, action="append", help="can be given several times")
    parser.add_argument("--seconds", type=float, default=10.0, help="how long each run lasts")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--page", type=Path, default=Path("docs/performance.md"))
    options = parser.parse_args()
    only = f"ONLY='{' '.join(options.only)}' " if options.only else ""
    command = f"make bench {only}SECONDS={options.seconds:g} REPEATS={options.repeats}"
    how = f"Measured with `{command}` on {page.machine()}."
    for name in options.only or BENCHES:
        begun = time.monotonic()
        with tempfile.TemporaryDirectory() as home:
            Path(home).chmod(0o711)
            section = BENCHES[name](Effort(options.seconds, options.repeats), Path(home))
        page.put(options.page.with_name(PAGES.get(name, options.page.name)), name, section, how, list(BENCHES))
        print(f"## {section.heading}\n\n{section.text}\n\n{name}: {time.monotonic() - begun:.0f} s", flush=True)


if __name__ == "__main__":
    main()
