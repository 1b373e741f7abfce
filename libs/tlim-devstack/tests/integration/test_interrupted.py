"""Who interrupts a start, and again because that takes a while, leaves nothing behind."""

import os
import signal
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest
from tlim_devstack.ports import Ports, variable_of
from tlim_devstack.supervision import Supervisor


def _still_runs(process: "subprocess.Popen[str]") -> bool:
    try:
        process.wait(0.1)
    except subprocess.TimeoutExpired:
        return True
    return False


@pytest.mark.parametrize("command", ["up", "run"])
def test_impatience_leaves_nothing_behind(tmp_path: Path, command: str) -> None:
    ports = {variable_of(name): str(port) for name, port in asdict(Ports.random()).items()}
    with subprocess.Popen(
        [sys.executable, "-m", "tlim_devstack", command],
        env={**os.environ, **ports, "TLIM_HOME": str(tmp_path)},
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert any("is ready" in line for line in process.stdout)  # the first part is; the others are on their way
        while _still_runs(process):
            process.send_signal(signal.SIGINT)
    supervisor = Supervisor(tmp_path)
    try:
        assert not supervisor.is_running()
    finally:
        supervisor.shutdown()
