"""A line of .env reaches the scripts as it reaches Compose, and has an effect or is refused."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from tlim_admin.env_file import INSTEAD
from tlim_runtime.secret_values import is_secret

from tests.deploy.compose_file import CONTAINERS
from tests.deploy.images import ROOT
from tests.deploy.settings_outside import CONTAINERS as OF_CONTAINERS
from tests.deploy.settings_outside import GATEWAY
from tests.deploy.settings_page import COMMANDS
from tests.deploy.told import SERVICES, SETTINGS

LINES = "TLIM_IMAGES=registry.example.com/tlim\nTLIM_VERSION=1.2\nTLIM_XMPP_DOMAIN=chat.example.org\n"
READERS = {
    **{(name, name): SETTINGS[name] for name in SERVICES},
    **{
        (table, {"bucket": "bucket", "provision": "streams"}.get(table, "admin")): one
        for table, one in COMMANDS.items()
    },
}
"""A table of docs/settings.md, the container that reads its settings → these."""
OF_ITS_OWN = {("bucket", "TLIM_S3_ACCESS_KEY")}  # the administrator's key


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A clone as far as the scripts need it, with a program in the place of docker that notes what it is told."""
    shutil.copytree(ROOT / "scripts", tmp_path / "scripts")
    (tmp_path / "deploy").mkdir()
    shutil.copy(ROOT / "deploy/images.lock", tmp_path / "deploy")
    (tmp_path / "docker").write_text('#!/bin/sh\necho "$@" >>"$0.log"\n')
    (tmp_path / "docker").chmod(0o755)
    return tmp_path


def told(clone: Path, env_file: str, *command: str, **environment: str) -> list[str]:
    """Return what a script tells docker, a line for each call."""
    (clone / ".env").write_bytes(env_file.encode())
    whole = {"PATH": os.environ["PATH"], "DOCKER": str(clone / "docker"), **environment}
    subprocess.run([clone / command[0], *command[1:]], env=whole, check=True)  # noqa: S603 - ours
    return (clone / "docker.log").read_text(encoding="utf-8").splitlines()


def test_the_secrets_are_made_by_the_image_and_for_the_domain_that_compose_takes(clone: Path) -> None:
    (line,) = told(clone, LINES, "scripts/secrets")
    assert " registry.example.com/tlim/admin:1.2 secrets /secrets --domain chat.example.org" in line


def test_the_images_are_built_under_the_names_that_compose_starts(clone: Path) -> None:
    lines = told(clone, f"{LINES}TLIM_REGISTRY=mirror.example.com\n", "scripts/images", "build")
    assert any(" --tag registry.example.com/tlim/session-api:1.2 " in line for line in lines)
    assert all(" --build-arg VERSION=1.2 " in line for line in lines)
    assert all(" --build-arg BASE=mirror.example.com/" in line for line in lines)


def test_what_compose_s_file_says_is_nothing_to_the_secrets_of_a_cluster(clone: Path) -> None:
    (line,) = told(clone, LINES, "scripts/secrets", str(clone / "overlay"))
    assert " localhost/tlim/admin:dev secrets /secrets --domain im.itonglian.com --owner " in line


@pytest.mark.parametrize(
    ("line", "domain"),
    [
        ("TLIM_XMPP_DOMAIN=a.example\r\n", "a.example"),
        ("export TLIM_XMPP_DOMAIN=a.example", "a.example"),
        (' TLIM_XMPP_DOMAIN = "a.example" # ours\n', "a.example"),
        ("TLIM_XMPP_DOMAIN='a.example'\n", "a.example"),
        ("TLIM_XMPP_DOMAIN=a.example # ours\n", "a.example"),
        ("TLIM_XMPP_DOMAIN: a.example  \n", "a.example"),
        ("TLIM_XMPP_DOMAIN=b.example\nTLIM_XMPP_DOMAIN=a.example\n", "a.example"),
        ("#TLIM_XMPP_DOMAIN=a.example\n", "im.itonglian.com"),
        ("MY_TLIM_XMPP_DOMAIN=a.example\n", "im.itonglian.com"),
        ("TLIM_XMPP_DOMAIN=\n", "im.itonglian.com"),
    ],
)
def test_a_line_means_what_it_means_to_compose(clone: Path, line: str, domain: str) -> None:
    (said,) = told(clone, line, "scripts/secrets")
    assert f"--domain {domain}" in said
    assert said.rstrip().endswith(domain)


@pytest.mark.parametrize(("given", "domain"), [("b.example", "b.example"), ("", "im.itonglian.com")])
def test_the_environment_wins(clone: Path, given: str, domain: str) -> None:
    (line,) = told(clone, LINES, "scripts/secrets", TLIM_XMPP_DOMAIN=given)
    assert line.rstrip().endswith(f"--domain {domain}")


def test_a_value_that_compose_would_change_is_refused(clone: Path) -> None:
    with pytest.raises(subprocess.CalledProcessError):
        told(clone, "TLIM_XMPP_DOMAIN=chat.${PLACE}\n", "scripts/secrets")
    assert not (clone / "docker.log").exists()


def interpolated(text: str) -> set[str]:
    """Return the settings whose values Compose puts into a text."""
    return set(re.findall(r"\$\{(TLIM_\w+)", text))


def reach(table: str, container: str) -> dict[str, bool]:
    """Return whether a line of .env reaches the container: for each name of the table."""
    environment = CONTAINERS[container].get("environment", {})
    reached = {}
    for field, what in READERS[table, container].model_fields.items():
        name = f"TLIM_{field}".upper()
        names = (name, f"{name}_FILE") if is_secret(what) else (name,)
        told = [str(environment[one]) for one in names if one in environment]
        reached[name] = name in interpolated("".join(told)) if told else "env_file" in CONTAINERS[container]
    return reached


@pytest.mark.parametrize(("table", "container"), READERS)
def test_each_setting_of_the_page_reaches_its_reader_or_is_refused(table: str, container: str) -> None:
    lost = {name for name, reached in reach(table, container).items() if not reached} - INSTEAD.keys()
    assert {(container, name) for name in lost} <= OF_ITS_OWN


def test_each_setting_of_the_gateway_and_of_containers_is_read_from_the_file_or_is_refused() -> None:
    files = [ROOT / "docker-compose.yml", *(ROOT / "deploy/compose").glob("*.yml")]
    read = interpolated("".join(file.read_text(encoding="utf-8") for file in files))
    read |= set(re.findall(r"TLIM_\w+", (ROOT / "scripts/settings").read_text(encoding="utf-8")))
    names = {name for name in {**GATEWAY.meanings, **OF_CONTAINERS.meanings} if name.startswith("TLIM_")}
    assert names - INSTEAD.keys() <= read


def test_what_docker_compose_yml_says_itself_is_refused_and_nothing_that_reaches_somebody() -> None:
    used = interpolated((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))
    environments = [one.get("environment", {}) for name, one in CONTAINERS.items() if name != "gateway"]
    fixed = {name for told in environments for name in told if name.startswith("TLIM_")} - used
    assert fixed <= INSTEAD.keys()
    reached = {name for reader in READERS for name, is_reached in reach(*reader).items() if is_reached}
    assert reached.isdisjoint(INSTEAD)
    assert used.isdisjoint(INSTEAD)
