"""Migrates several databases in one process: `python -m tlim_devstack.migrations`, with package → URL as JSON on stdin.

The libraries are loaded once. One process for each database took three times as much of the processor.
"""

import json
import sys

from tlim_runtime.migrations import upgrade


def main() -> None:
    """Run the migrations of all packages, and print the name of each before its own."""
    for package, url in json.load(sys.stdin).items():
        print(package, flush=True)
        upgrade(package, url)


if __name__ == "__main__":
    main()
