"""What holds for every command of tlim-admin."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
from tlim_admin import secret_files
from tlim_admin.__main__ import app, tlim_admin
from tlim_runtime.logging import get_logger
from typer.testing import CliRunner

SILENT = {"check-secrets", "bucket"}
"""They print nothing when all is well."""


def commands(of: typer.Typer) -> Iterator[tuple[str, list[str]]]:
    """Give the names of all commands, each with its options."""
    group = typer.main.get_command(of)
    for name, command in group.commands.items():  # type: ignore[attr-defined]
        inner = getattr(command, "commands", {name: command})
        for one, leaf in inner.items():
            yield one, [option for parameter in leaf.params for option in parameter.opts]


@pytest.mark.parametrize(("name", "options"), list(commands(app)))
def test_every_command_that_prints_something_prints_one_document_on_demand(name: str, options: list[str]) -> None:
    assert ("--json" in options) is (name not in SILENT)


def test_the_log_of_a_command_is_not_in_what_it_prints(capsys: pytest.CaptureFixture[str]) -> None:
    tlim_admin()

    get_logger("provision").info("provisioned", streams=5)

    printed = capsys.readouterr()
    assert printed.out == ""
    assert "provisioned" in printed.err


@pytest.mark.parametrize(
    ("address", "proxies", "refused"),
    [
        ("127.0.0.1", "", False),
        ("[::1]", "", False),
        ("0.0.0.0", "", True),  # noqa: S104
        ("[::]", " ", True),
        ("192.0.2.7", "10.0.0.0/8", False),
        ("192.0.2.7", "255.255.255.255/32 192.0.2.9", False),
        ("192.0.2.7", "255.255.255.255/32", True),
        ("192.0.2.7", "255.255.255.255 0.0.0.0 ::", True),
        ("0.0.0.0", "10.0.0.0/8", True),  # noqa: S104
        ("[::]", "10.0.0.0/8", True),
        ("", "10.0.0.0/8", True),
        ("localhost", "", True),
    ],
)
def test_plain_http_is_served_to_loopback_or_a_named_proxy_only(
    tmp_path: Path, address: str, proxies: str, refused: bool
) -> None:
    secret_files.write_missing(tmp_path, "chat.example.org", 10_001)

    ran = CliRunner().invoke(
        app, ["check-secrets", str(tmp_path), f"--plain-http-at={address}", f"--proxies={proxies}"]
    )

    assert ran.exit_code == refused
    assert len(ran.stderr.splitlines()) == refused
    assert ("TLIM_BIND" in ran.stderr) is refused


def test_a_certificate_for_another_domain_is_told_in_one_line(tmp_path: Path) -> None:
    secret_files.write_missing(tmp_path, "chat.example.org", 10_001)

    ran = CliRunner().invoke(app, ["check-secrets", str(tmp_path), "--domain=im.example.com"])

    assert ran.exit_code == 1
    assert len(ran.stderr.splitlines()) == 1
    assert "xmpp.pem is for chat.example.org, ejabberd, gateway, localhost, and TLIM_XMPP_DOMAIN" in ran.stderr


@pytest.mark.parametrize(
    ("setting", "value", "instead"),
    [
        ("TLIM_GATEWAY_SCHEME", "https", "add deploy/compose/tls.yml"),
        ("TLIM_S3_BUCKET", "files", "add deploy/compose/external-s3.yml"),
        ("TLIM_S3_BUCKET", "", None),
        ("TLIM_LOG_LEVEL", "DEBUG", None),
    ],
)
def test_a_setting_without_effect_in_compose_is_told_with_what_to_do_instead(
    tmp_path: Path, setting: str, value: str, instead: str | None
) -> None:
    secret_files.write_missing(tmp_path, "chat.example.org", 10_001)

    ran = CliRunner().invoke(app, ["check-secrets", str(tmp_path), "--in-compose"], env={setting: value})

    assert ran.exit_code == (instead is not None)
    assert len(ran.stderr.splitlines()) == ran.exit_code
    assert (f"{setting} has no effect in .env: {instead}" in ran.stderr) is (instead is not None)
