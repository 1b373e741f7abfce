"""A line of .env reaches the scripts as it reaches Compose."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.deploy.images import ROOT

LINES = "TLIM_IMAGES=registry.example.com/tlim\nTLIM_VERSION=1.2\nTLIM_XMPP_DOMAIN=chat.example.org\n"


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
    assert " tlim/admin:dev secrets /secrets --domain im.itonglian.com --owner " in line


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
