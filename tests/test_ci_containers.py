"""What CI does for its stories in containers (.ci/containers) does nothing to a machine that has an engine."""

import os
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_a_machine_with_an_engine_is_left_alone(tmp_path: Path) -> None:
    engine = tmp_path / "docker"
    engine.write_text("#!/bin/sh\nexit 0\n", encoding="utf-8")
    engine.chmod(0o755)
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    command = [str(ROOT / ".ci/containers"), "false"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)  # noqa: S603
    assert (done.returncode, done.stderr) == (3, "")
    assert "an engine runs here already" in done.stdout
