"""What an operator writes into a clone, and git must not offer to keep: settings, secrets, backups."""

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.deploy.images import ROOT

WRITTEN = (
    ".env",
    "secrets/component",
    "backups/monday/accounts.jsonl",
    *(f"deploy/k8s/overlays/{overlay}/secrets/component" for overlay in ("local", "production", "mine")),
    "deploy/k8s/overlays/production/secrets/postgres-ca.pem",
    "tests/e2e/kubernetes/outside/secrets/192.0.2.1/component",
)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """Return an empty repository with our .gitignore: what this machine ignores besides does not count."""
    subprocess.run(["git", "init", "--quiet", "--template=", tmp_path], check=True)  # noqa: S603, S607
    return Path(shutil.copy(ROOT / ".gitignore", tmp_path)).parent


@pytest.mark.parametrize("path", WRITTEN)
def test_git_offers_no_settings_no_secrets_and_no_backups(repository: Path, path: str) -> None:
    asked = ["git", "-c", "core.excludesFile=", "check-ignore", "--no-index", "--quiet", path]
    assert subprocess.run(asked, cwd=repository, check=False).returncode == 0  # noqa: S603
