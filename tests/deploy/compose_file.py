"""docker-compose.yml, read, and the settings of what runs in its containers."""

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
