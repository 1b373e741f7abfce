"""What our processes are told by their environment, against what their settings read."""

import re
from collections.abc import Iterable
from importlib import import_module

from pydantic_settings import BaseSettings
from tlim_admin.settings import BucketSettings
from tlim_runtime.settings import DatabaseLogin

from tests.deploy.images import ROOT

SERVICES = ("session-api", "file-api", "message-store", "xmpp-bridge")
SettingsByName = dict[str, type[BaseSettings]]
SETTINGS: SettingsByName = {
    **{name: import_module(f"{name.replace('-', '_')}.settings").Settings for name in SERVICES},
    **{f"migrate-{name}": DatabaseLogin for name in SERVICES if name != "xmpp-bridge"},
    "databases": DatabaseLogin,
    "bucket": BucketSettings,
}
"""Of each service, and of each job that has the same name in compose and in Kubernetes."""


def assert_all_is_read(settings: type[BaseSettings], variables: Iterable[str]) -> None:
    """Each TLIM_ variable is a field, or the file of one, and no required field is missing."""
    fields = settings.model_fields
    told = {one.removeprefix("TLIM_").lower() for one in variables if one.startswith("TLIM_")}
    told = {one if one in fields else one.removesuffix("_file") for one in told}
    assert told <= fields.keys()
    assert {field for field, what in fields.items() if what.is_required()} <= told


def assert_the_gateway_reads(variables: Iterable[str]) -> None:
    """Each TLIM_ variable stands in the gateway's configuration."""
    known = set(re.findall(r"\{\$(TLIM_\w+)", (ROOT / "deploy/caddy/Caddyfile").read_text(encoding="utf-8")))
    assert {one for one in variables if one.startswith("TLIM_")} <= known
