"""docs/settings.md has every variable that somebody may set outside of development."""

import re

from tlim_runtime import variables

from tests.deploy.images import ROOT
from tests.deploy.settings_outside import GATEWAY
from tests.deploy.settings_page import PAGE

COMPOSE = [ROOT / "docker-compose.yml", *(ROOT / "deploy/compose").glob("*.yml")]
OF_OTHERS = {"FORWARDED_ALLOW_IPS", "XMPP_NODES"}
"""These have no TLIM_: uvicorn reads the first, and the start of ejabberd the second."""


def test_every_variable_that_somebody_may_set_is_on_the_page() -> None:
    of_compose = {name for file in COMPOSE for name in re.findall(r"\$\{(TLIM_\w+)", file.read_text(encoding="utf-8"))}
    known = variables.SETTINGS | variables.SECRETS | variables.GATEWAY | variables.CONTAINERS | of_compose | OF_OTHERS
    assert known == set(re.findall(r"^\| `(\w+)`", PAGE.read_text(encoding="utf-8"), re.MULTILINE))


def test_the_gateway_has_a_row_for_each_variable_that_it_reads() -> None:
    assert GATEWAY.meanings.keys() == variables.GATEWAY
