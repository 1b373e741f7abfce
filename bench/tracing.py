"""What traces cost (OpenTelemetry): processor time of each process, without traces and with all of them kept.

Two whole systems write in turn, at the rate that is given. A collector in a process of its own takes the spans and
throws them away. Its time does not count.
"""

import multiprocessing
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing.connection import Connection
from pathlib import Path

from bench.comparing import Bars, Effort, Figure, Section, interleaved, prose, ratio, table
from bench.load import Flood, Steady
from bench.one_to_one import WINDOW, Run, costs, part_costs, ready
from bench.systems import running_stack, tlim

RATE = 300.0
OFF, ON = "without traces", "with traces"


def measure(effort: Effort, home: Path) -> Section:
    """Compare the two systems, at a steady rate and as fast as it goes."""
    with ExitStack() as opened:
        collector = opened.enter_context(running_collector())
        off = opened.enter_context(running_stack(home / "off"))
        on = opened.enter_context(running_stack(home / "on", {"TLIM_TRACES_URL": collector}))
        both = [ready(tlim(stack, name), opened) for stack, name in ((off, OFF), (on, ON))]
        steady, flood = (
            interleaved(effort.repeats, {one.system.name: partial(one.run, job) for one in both})
            for job in (Steady(RATE, effort.seconds), Flood(WINDOW, effort.seconds))
        )
    text = "\n\n".join((prose(__doc__), f"At {RATE:.0f} messages a second:", costs(steady), _rates(flood)))
    parts = {name: {part: cost.median for part, cost in part_costs(runs).items()} for name, runs in steady.items()}
    return Section("What traces cost", text, Bars(f"µs of processor time a message, at {RATE:.0f}/s", parts, {}))


def _rates(flood: dict[str, list[Run]]) -> str:
    rates = {name: Figure.of(run.outcome.rate for run in runs) for name, runs in flood.items()}
    ratios = Figure.of(
        ratio(run.outcome.rate, other.outcome.rate) for run, other in zip(flood[ON], flood[OFF], strict=True)
    )
    return table(
        ("as fast as it goes", "messages/s", f"times {OFF}"),
        [(OFF, rates[OFF].told(), ""), (ON, rates[ON].told(), ratios.told(2))],
    )


@contextmanager
def running_collector() -> Iterator[str]:
    """Take what exporters send with OTLP over HTTP, in a process of its own. Gives the URL."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_collect, args=(theirs,), daemon=True)
    process.start()
    try:
        yield f"http://127.0.0.1:{ours.recv()}/v1/traces"
    finally:
        process.terminate()
        process.join()


class _Swallow(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def _collect(pipe: Connection) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Swallow) as server:
        pipe.send(server.server_address[1])
        server.serve_forever()
