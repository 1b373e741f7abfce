"""docker-compose.yml, read, and the settings of what runs in its containers."""

import re
from collections.abc import Mapping
from typing import Any

import yaml
from tlim_admin.settings import DoctorSettings
from tlim_runtime.provision import ProvisionSettings

from tests.deploy import told
from tests.deploy.images import ROOT

TEXT = (ROOT / "docker-compose.yml").read_text(encoding="utf-8")
COMPOSE: dict[str, Any] = yaml.safe_load(TEXT)
CONTAINERS: dict[str, dict[str, Any]] = COMPOSE["services"]
SETTINGS: told.SettingsByName = {**told.SETTINGS, "streams": ProvisionSettings, "admin": DoctorSettings}


def interpolate(text: str, given: Mapping[str, str]) -> str:
    """Return a text as Compose understands it: `${NAME:-default}`, also within a default."""
    inner = re.compile(r"\$\{(\w+)(?::-([^${}]*))?\}")
    while inner.search(text):
        text = inner.sub(lambda found: given.get(found[1]) or found[2] or "", text)
    return text
