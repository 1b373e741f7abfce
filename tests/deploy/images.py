"""deploy/images.lock, read."""

from pathlib import Path

ROOT = Path(__file__).parents[2]


def locked_images() -> dict[str, str]:
    """Return the images of others: what each is for → its reference, with tag and digest."""
    lines = (ROOT / "deploy/images.lock").read_text(encoding="utf-8").splitlines()
    return dict(line.split() for line in lines if line and not line.startswith("#"))
