"""docs/operations.md, Sizes: the limits are those of docker-compose.yml, and an operator can raise them as it says."""

import re

from tests.deploy.compose_file import CONTAINERS
from tests.deploy.images import ROOT
from tests.deploy.pages import shown
from tests.deploy.told import SERVICES

OPERATIONS = ROOT / "docs/operations.md"
PAGE = OPERATIONS.read_text(encoding="utf-8")
PARTS = {
    "the four services, once each": SERVICES,
    "PostgreSQL": ("postgres",),
    "NATS": ("nats",),
    "S3": ("s3",),
    "ejabberd": ("ejabberd",),
    "the gateway": ("gateway",),
}


def gibibytes(size: str) -> float:
    return float(re.sub(r"[a-zA-Z]+$", "", size)) * {"g": 1, "m": 1 / 1024}[size.lstrip("0123456789")[0].lower()]


def test_the_limits_of_the_page_are_those_of_compose() -> None:
    limits = {name: gibibytes(one["mem_limit"]) for name, one in CONTAINERS.items() if one["restart"] != "no"}
    assert limits.keys() == {name for names in PARTS.values() for name in names}
    told = dict(re.findall(r"^\| ([^|]+) \|[^|]+\| ([\d.]+) GiB \|", PAGE, re.MULTILINE))
    assert {part: float(size) for part, size in told.items()} == {
        part: sum(limits[name] for name in names) for part, names in PARTS.items()
    }
    assert f"All limits in compose together are {sum(limits.values()):g} GiB" in PAGE


def test_a_limit_that_is_raised_as_the_page_says_leaves_go_as_much_as_before() -> None:
    for name, raised in shown(OPERATIONS, "services").items():
        limit, before = gibibytes(raised["mem_limit"]), CONTAINERS[name]
        assert limit > gibibytes(before["mem_limit"])
        told = before.get("environment", {}).keys() & {"GOMEMLIMIT"}
        assert raised.get("environment", {}).keys() == told
        assert all(0.7 < gibibytes(raised["environment"][one]) / limit < 0.9 for one in told)
