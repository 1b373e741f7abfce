"""Writes what was measured into a page: each bench has a part between two marks, and replaces only its own."""

import os
import platform
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import psutil

from bench.comparing import Bars, Section

PART = re.compile(r"<!-- bench (\w+) -->\n.*?<!-- end -->\n", re.DOTALL)


def put(page: Path, name: str, section: Section, how: str, order: Sequence[str]) -> None:
    """Put a section into the page, in its place among the benches of `order`; draw its plot beside the page.

    `how` says how and where it was measured.
    """
    text = page.read_text() if page.exists() else ""
    parts = {match[1]: match[0] for match in PART.finditer(text)}
    picture = ""
    if section.plot is not None:
        drawing = page.with_name(f"{page.stem}-{name}.svg")
        draw(section.plot, drawing)
        picture = f"![{section.heading}, {section.plot.unit}]({drawing.name})\n\n"
    said = f"## {section.heading}\n\n{section.text}\n\n{picture}{how}\n"
    parts[name] = f"<!-- bench {name} -->\n{said}<!-- end -->\n"
    before = PART.sub("", text).rstrip("\n")
    page.write_text("\n".join((before, "", *(parts[one] for one in order if one in parts))).lstrip("\n"))


def machine() -> str:
    """Return the day, what this machine is, and how busy it is now."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.machine())
    memory = psutil.virtual_memory().total / 2**30
    system = platform.freedesktop_os_release()["PRETTY_NAME"]
    return (
        f"{datetime.now(UTC):%Y-%m-%d}: {os.cpu_count()} cores ({model}), {memory:.0f} GiB, {system}, "
        f"Python {platform.python_version()}; load before it {os.getloadavg()[0]:.1f}"
    )


def draw(bars: Bars, path: Path) -> None:
    """Draw a plot as SVG. The same figures give the same file."""
    import matplotlib as mpl  # noqa: PLC0415 - only `make bench` installs it
    from matplotlib.figure import Figure as Drawing  # noqa: PLC0415

    mpl.rcParams["svg.hashsalt"] = "tlim"
    labels = list(bars.parts)
    drawing = Drawing(figsize=(8, 1 + 0.4 * len(labels)), layout="constrained")
    axes = drawing.subplots()
    left = dict.fromkeys(labels, 0.0)
    for part in dict.fromkeys(part for parts in bars.parts.values() for part in parts):
        widths = [bars.parts[label].get(part, 0.0) for label in labels]
        axes.barh(labels, widths, left=[left[label] for label in labels], label=part)
        left = {label: left[label] + width for label, width in zip(labels, widths, strict=True)}
    for label, (low, high) in bars.spread.items():
        axes.plot((low, high), (label, label), color="black", linewidth=1.5)
    axes.invert_yaxis()
    axes.set_xlabel(bars.unit)
    if any(len(parts) > 1 for parts in bars.parts.values()):
        axes.legend(fontsize="small")
    drawing.savefig(path, metadata={"Date": None})
