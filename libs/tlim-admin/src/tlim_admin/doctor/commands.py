"""The command `doctor`."""

import asyncio
import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import typer
from tlim_runtime.settings import load_settings

from tlim_admin import secret_files
from tlim_admin.backup.commands import IN_CONTAINERS, Secrets, logins
from tlim_admin.doctor import certificates, objects, postgres, services, streams
from tlim_admin.doctor.findings import Finding, NamedCheck, State, fine, run_all, skipped, wrong
from tlim_admin.printed import AsJson
from tlim_admin.progress import steps
from tlim_admin.settings import DoctorSettings

_COLOURS = {State.OK: "green", State.WARNING: "yellow", State.WRONG: "red", State.SKIPPED: "bright_black"}


def doctor_command(secrets: Secrets = IN_CONTAINERS, as_json: AsJson = False) -> None:
    """Look at every server, permission, clock and certificate, and say what to change. Exits with 1 if one is wrong.

    It looks at what the environment names, and says what it did not look at.
    """
    settings = load_settings(DoctorSettings)
    with steps() as shown, shown.step("looking"):
        findings = asyncio.run(examine(settings, secrets))
    if as_json:
        typer.echo(json.dumps([finding._asdict() for finding in findings], ensure_ascii=False))
    else:
        for finding in findings:
            state = typer.style(f"{finding.state.value:<8}", fg=_COLOURS[finding.state])
            typer.echo(f"{state} {finding.name}: {finding.seen}")
            if finding.advice:
                typer.echo(f"         -> {finding.advice}")
    if any(finding.state is State.WRONG for finding in findings):
        raise typer.Exit(1)


async def examine(settings: DoctorSettings, secrets: Path) -> list[Finding]:
    """Run all checks whose servers the settings name."""
    return [*await run_all(list(_checks(settings, secrets))), *_missing(settings)]


def _checks(settings: DoctorSettings, secrets: Path) -> Iterator[NamedCheck]:
    yield NamedCheck("secrets", partial(_secrets, secrets), "run make secrets")
    look_at_rows = partial(_postgres, settings, secrets)
    yield NamedCheck(postgres.NAME, look_at_rows, "check TLIM_POSTGRES_URL, and that tlim-admin databases has run")
    yield NamedCheck("S3", partial(objects.look, settings), "check TLIM_S3_…, and the rights of the key")
    if settings.nats_url is not None and settings.nats_password is not None:
        login = (settings.nats_url, settings.nats_user, settings.nats_password.get_secret_value())
        look_at_streams = partial(streams.look, *login, settings.nats_replicas)
        yield NamedCheck(streams.NAME, look_at_streams, "check TLIM_NATS_URL, and the password of this user")
    if settings.xmpp_admin_url is not None and settings.xmpp_admin_token is not None:
        where = (settings.xmpp_admin_url, settings.xmpp_admin_token.get_secret_value(), settings.xmpp_domain)
        yield NamedCheck("XMPP accounts", partial(services.accounts_api, *where), "check TLIM_XMPP_ADMIN_URL")
    if settings.xmpp_host is not None:
        at = (settings.xmpp_host, settings.xmpp_client_port, settings.xmpp_domain, settings.xmpp_ca_file)
        yield NamedCheck(
            "XMPP certificate", partial(certificates.xmpp, *at), "check TLIM_XMPP_HOST, and that ejabberd runs"
        )
    yield from _over_http(settings)


def _over_http(settings: DoctorSettings) -> Iterator[NamedCheck]:
    if settings.jwks_url is not None:
        yield NamedCheck("token keys", partial(services.token_keys, settings.jwks_url), "check TLIM_JWKS_URL")
    for name, addresses in settings.services().items():
        if addresses is not None:
            yield NamedCheck(name, partial(services.service, name, addresses), "check that it runs, and its address")
    if settings.gateway is not None:
        look = partial(services.gateway, settings.gateway, settings.xmpp_ca_file)
        yield NamedCheck("gateway", look, "check that the gateway runs, and TLIM_GATEWAY")
        if settings.gateway.startswith("https:"):
            look = partial(certificates.https, settings.gateway, settings.xmpp_ca_file)
            yield NamedCheck("gateway certificate", look, "check the gateway's certificate")


def _missing(settings: DoctorSettings) -> Iterator[Finding]:
    if settings.nats_url is None or settings.nats_password is None:
        yield skipped(streams.NAME, "TLIM_NATS_URL", "TLIM_NATS_PASSWORD")
    if settings.xmpp_admin_url is None:
        yield skipped("XMPP accounts", "TLIM_XMPP_ADMIN_URL", "TLIM_XMPP_ADMIN_TOKEN")
    if settings.xmpp_host is None:
        yield skipped("XMPP certificate", "TLIM_XMPP_HOST")
    if settings.jwks_url is None:
        yield skipped("token keys", "TLIM_JWKS_URL")
    for name, addresses in settings.services().items():
        if addresses is None:
            yield skipped(name, f"TLIM_{name.upper().replace('-', '_')}")
    if settings.gateway is None:
        yield skipped("gateway", "TLIM_GATEWAY")


async def _secrets(folder: Path) -> list[Finding]:
    weak = await asyncio.to_thread(secret_files.weak, folder)
    if weak:
        return [wrong("secrets", f"{', '.join(weak)}: easy to guess", "make better ones: docs/operations.md, Rotate")]
    return [fine("secrets", "hard to guess")]


async def _postgres(settings: DoctorSettings, secrets: Path) -> list[Finding]:
    return await postgres.look(settings, secrets, logins(settings, secrets))
