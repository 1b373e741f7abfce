"""The list of TLIM_ variables names all that some part reads, and nothing else. No example holds a usable secret."""

import re
from dataclasses import fields
from importlib import import_module
from itertools import chain
from pathlib import Path

from tlim_admin.secret_files import S3_KEYS
from tlim_devstack.ports import Ports, variable_of
from tlim_runtime import variables
from tlim_runtime.provision import ProvisionSettings
from tlim_runtime.secret_values import is_secret, problem_of
from tlim_runtime.settings import EnvironmentSettings

ROOT = Path(__file__).resolve().parents[1]
SETTINGS: list[type[EnvironmentSettings]] = [
    ProvisionSettings,
    *(
        import_module(f"{name}.settings").Settings
        for name in ("file_api", "message_store", "session_api", "xmpp_bridge")
    ),
    import_module("xmpp_bridge.token_settings").TokenSettings,
    import_module("tlim_admin.settings").DoctorSettings,
    import_module("tlim_admin.settings").OperationsSettings,
    import_module("tlim_admin.settings").BucketSettings,
]
WITH_EXAMPLES = {".md", ".yml", ".yaml", ".env", ".toml", ".example"}
ACCESS_KEYS = {access_key for access_key, _ in S3_KEYS.values()}  # names, with secret keys of their own
ASSIGNED = re.compile(rf"({'|'.join(variables.SECRETS)})[\"']?\s*[=:]\s*[\"']?([^\s\"'`]+)")


def fields_of(*, secret: bool) -> set[str]:
    all_fields = chain.from_iterable(settings.model_fields.items() for settings in SETTINGS)
    return {f"TLIM_{name}".upper() for name, field in all_fields if is_secret(field) is secret}


def named_in(*folders: str) -> set[str]:
    texts = [path.read_text() for folder in folders for path in (ROOT / folder).rglob("*.py")]
    return set(re.findall(r"\"(TLIM_[A-Z0-9_]*[A-Z0-9])\"", "\n".join(texts)))


def test_the_settings_of_all_services_are_known() -> None:
    assert set(variables.SECRETS) == fields_of(secret=True)
    assert set(variables.SETTINGS) == fields_of(secret=False)


def test_what_the_gateway_reads_is_known() -> None:
    caddyfile = (ROOT / "deploy" / "caddy" / "Caddyfile").read_text()
    assert set(variables.GATEWAY) == set(re.findall(r"\{\$(TLIM_\w+)", caddyfile))


def test_what_the_stack_and_the_client_read_is_known() -> None:
    ports = {variable_of(item.name) for item in fields(Ports)}
    of_stack = {"TLIM_BIND", "TLIM_HOME", "TLIM_OPENFIRE_HOME", "TLIM_XMPP_SERVER"}
    assert set(variables.STACK) == ports | of_stack
    streams = {"TLIM_IN", "TLIM_OUT", "TLIM_DEAD", "TLIM_LEASES"}
    read = named_in("libs/tlim-devstack/src", "libs/tlim-client/src") - streams
    assert {name for name in read - variables.KNOWN if not name.startswith(variables.TESTS)} == set()
    assert of_stack | variables.CLIENT <= read


def test_the_names_of_our_keys_of_s3_are_taken() -> None:
    assert {name for name in ACCESS_KEYS if problem_of(name)} == set()


def test_no_secret_of_a_page_or_template_would_be_accepted() -> None:
    folders = [ROOT / name for name in ("deploy", "docs", "libs", "services")]
    files = [*ROOT.glob("*.*"), *(file for folder in folders for file in folder.rglob("*") if file.suffix != ".py")]
    texts = ((str(file), file.read_text()) for file in files if file.suffix in WITH_EXAMPLES)
    usable = [
        (name, *found)
        for name, text in texts
        for found in ASSIGNED.findall(text)
        if found[1] not in ACCESS_KEYS and problem_of(found[1]) is None
    ]
    assert usable == []
