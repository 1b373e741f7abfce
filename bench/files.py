"""Files up and down, beside S3 itself with signed URLs: the same client, the same bytes.

tlim is reached through the gateway, as people reach it. Each run transfers the file again and again for the given time,
at least once. The memory is file-api's resident memory: before the bench, and its highest since the start (proc(5)).
"""

import asyncio
import multiprocessing
import os
import time
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from statistics import median
from typing import NamedTuple

import httpx
from tlim_admin.object_store import FILES_BUCKET, client
from tlim_client.http import HttpClient
from tlim_devstack.stack import Stack

from bench.comparing import Bars, Effort, Figure, Section, interleaved, prose, table
from bench.systems import running_stack, tlim

SIZES = {"10 KiB": 10 * 2**10, "1 MiB": 2**20, "1 GiB": 2**30}
PIECE = 2**20
LONG_S = 600.0


class Way(NamedTuple):
    """A request that sends a file, or that fetches one. `field`: the file is in a form, with this name."""

    method: str
    url: str
    token: str = ""
    field: str = ""


Found = dict[str, dict[str, list[float]]]


def measure(effort: Effort, home: Path) -> Section:
    """Measure each size, up and down, with both in turn."""
    sizes = dict(list(SIZES.items())[: 3 if effort.seconds >= 5 else 2])  # less is only a proof that the bench runs
    with ExitStack() as opened:
        stack = opened.enter_context(running_stack(home / "tlim"))
        load = opened.enter_context(ProcessPoolExecutor(1, multiprocessing.get_context("spawn")))
        token = asyncio.run(_token(stack))
        found: Found = {}
        before = _memory(stack, "VmRSS")
        for title, size in sizes.items():
            file = home / "file"
            with file.open("wb") as out:
                for at in range(0, size, PIECE):
                    out.write(os.urandom(min(PIECE, size - at)))
            for direction, ways in _ways(stack, token, file).items():
                runs = {name: partial(_run, load, way, file, effort.seconds) for name, way in ways.items()}
                found[f"{title} {direction}"] = interleaved(effort.repeats, runs)
        memory = f"file-api had {before:,.0f} MiB before it, and {_memory(stack, 'VmHWM'):,.0f} MiB at most."
    said = prose(__doc__)
    return Section("Files", f"{said}\n\n{_table(found)}\n\n{memory}", _plot(found))


def _run(load: ProcessPoolExecutor, way: Way, file: Path, seconds: float) -> float:
    return load.submit(transfer, way, file, seconds).result()


async def _token(stack: Stack) -> str:
    person = tlim(stack).people(1)[0]
    async with HttpClient(stack.addresses.gateway) as http:
        await http.log_in(*person)
        assert http.token is not None
        return http.token


def _ways(stack: Stack, token: str, file: Path) -> dict[str, dict[str, Way]]:
    """Return the ways up and down. What is fetched has been sent."""
    door = f"{stack.addresses.gateway}/v1/files"
    up = Way("POST", door, token, "file")
    file_id = _send(up, file).json()["file_id"]
    key = stack.credentials.s3_keys()[0]
    with client(f"http://127.0.0.1:{stack.ports.s3}", key.access_key, key.secret_key) as s3:
        place = {"Bucket": FILES_BUCKET, "Key": f"bench/{file.stat().st_size}"}
        put, get = (
            s3.generate_presigned_url(what, Params=place, ExpiresIn=36_000) for what in ("put_object", "get_object")
        )
    _send(Way("PUT", put), file)
    return {
        "up": {"tlim": up, "S3": Way("PUT", put)},
        "down": {"tlim": Way("GET", f"{door}/{file_id}", token), "S3": Way("GET", get)},
    }


def _memory(stack: Stack, which: str) -> float:
    """Return a line of proc(5) status of file-api in MiB."""
    lines = Path(f"/proc/{stack.supervisor.pid('file-api')}/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(f"{which}:"))


# --- in the load's process --------------------------------------------------------------------------------------------


def transfer(way: Way, file: Path, seconds: float) -> float:
    """Transfer the file again and again, at least once. Return the median of the milliseconds it took."""
    took = list[float]()
    until = time.perf_counter() + seconds
    while not took or time.perf_counter() < until:
        begun = time.perf_counter()
        if way.method == "GET":
            _fetch(way)
        else:
            _send(way, file)
        took.append((time.perf_counter() - begun) * 1000)
    return median(took)


def _send(way: Way, file: Path) -> httpx.Response:
    with file.open("rb") as stream, httpx.Client(timeout=LONG_S, trust_env=False) as http:
        if way.field:
            files = {way.field: ("file.bin", stream)}
            return http.request(way.method, way.url, files=files, headers=_headers(way)).raise_for_status()
        size = {"Content-Length": str(file.stat().st_size)}  # S3 asks for it
        pieces = iter(partial(stream.read, PIECE), b"")
        return http.request(way.method, way.url, content=pieces, headers=size).raise_for_status()


def _fetch(way: Way) -> None:
    with httpx.stream(way.method, way.url, headers=_headers(way), timeout=LONG_S, trust_env=False) as answer:
        answer.raise_for_status()
        for _ in answer.iter_raw():
            pass


def _headers(way: Way) -> dict[str, str]:
    return {"Authorization": f"Bearer {way.token}"} if way.token else {}


# --- what is told -----------------------------------------------------------------------------------------------------


def _table(found: Found) -> str:
    rows = []
    for what, systems in found.items():
        ratios = Figure.of(own / direct for own, direct in zip(systems["tlim"], systems["S3"], strict=True))
        rows.append((what, Figure.of(systems["tlim"]).told(1), Figure.of(systems["S3"]).told(1), ratios.told(2)))
    return table(("file", "tlim, ms", "S3, ms", "times S3"), rows)


def _plot(found: Found) -> Bars:
    ratios = {
        what: Figure.of(own / direct for own, direct in zip(systems["tlim"], systems["S3"], strict=True))
        for what, systems in found.items()
    }
    return Bars.of("times the time of S3", ratios)
