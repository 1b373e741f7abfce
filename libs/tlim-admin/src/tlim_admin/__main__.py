"""The operator's command: `tlim-admin`, or `python -m tlim_admin`."""

import asyncio
import os
from pathlib import Path
from typing import Annotated

import typer
from pydantic import SecretStr
from tlim_runtime.driver_urls import driver_url
from tlim_runtime.logging import log_to_stderr
from tlim_runtime.settings import DatabaseLogin, load_settings

from tlim_admin import databases, env_file, object_store, plain_http, secret_files
from tlim_admin.backup.commands import backup_command, restore_command, verify_command
from tlim_admin.doctor.commands import doctor_command
from tlim_admin.failures import one_line
from tlim_admin.object_store import ADMIN_ACTIONS, S3Key
from tlim_admin.operations.commands import redrive_command, trace_command
from tlim_admin.people.commands import app as people
from tlim_admin.printed import AsJson, say
from tlim_admin.retention.commands import partitions_command, retention_command
from tlim_admin.settings import BucketSettings
from tlim_admin.upkeep.commands import rebuild_command, replay_command, rotate_keys_command

OWNER = 10_001
"""The user of all our containers, for ever: the volumes belong to it."""

app = typer.Typer(name="tlim-admin", no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
SecretsFolder = Annotated[Path, typer.Argument(help="the folder of the secrets")]


@app.callback()
def tlim_admin() -> None:
    """Prepare and look after a deployment of tlim."""
    log_to_stderr()


@app.command()
def secrets(
    folder: SecretsFolder,
    domain: Annotated[str, typer.Option(help="the XMPP domain, for the self-made certificate")] = "im.itonglian.com",
    owner: Annotated[int, typer.Option(help="the user that the files belong to, if root makes them")] = OWNER,
    as_json: AsJson = False,
) -> None:
    """Make the secrets that are missing. Those that are there stay as they are."""
    with one_line():
        written = secret_files.write_missing(folder, domain, owner)
    sentence = f"written: {', '.join(written)}" if written else "all secrets are there"
    say({"written": list(written)}, sentence, as_json=as_json)


@app.command()
def check_secrets(
    folder: SecretsFolder,
    in_compose: Annotated[bool, typer.Option("--in-compose", help="no setting of .env may be without effect")] = False,
    domain: Annotated[str | None, typer.Option(help="the XMPP domain, which the certificate must name")] = None,
    plain_http_at: Annotated[str | None, typer.Option(help="where the gateway serves plain HTTP, if it does")] = None,
    proxies: Annotated[str, typer.Option(help="the trusted proxies before it, which speak TLS with people")] = "",
) -> None:
    """Check that all secrets are there, hard to guess, and not sent over plain HTTP; and that the other files fit."""
    with one_line():
        if in_compose:
            env_file.check(os.environ)
        if plain_http_at is not None:
            plain_http.check(plain_http_at, proxies)
        secret_files.check(folder, domain)


@app.command("databases")
def prepare_databases(folder: SecretsFolder, as_json: AsJson = False) -> None:
    """Create the roles and databases that are missing; TLIM_DATABASE_URL is a superuser's."""
    url = driver_url(load_settings(DatabaseLogin).database_url.get_secret_value())
    with one_line():
        passwords = secret_files.role_passwords(folder) | secret_files.xmpp_password(folder)
        created = asyncio.run(databases.prepare(SecretStr(url), passwords))
    sentence = f"created: {', '.join(created)}" if created else "all databases are there"
    say({"created": created}, sentence, as_json=as_json)


@app.command()
def bucket() -> None:
    """Create the bucket of files if it is missing, and let the web pages of TLIM_CORS_ORIGINS use it."""
    settings = load_settings(BucketSettings)
    access_key, secret_key = settings.s3_access_key.get_secret_value(), settings.s3_secret_key.get_secret_value()
    key = S3Key("admin", access_key, secret_key, ADMIN_ACTIONS)
    where = settings.s3_endpoint_url
    with one_line():
        object_store.ensure_bucket(where, key, settings.s3_bucket, settings.s3_region)
        object_store.allow_origins(where, key, settings.s3_bucket, settings.cors_origins, settings.s3_region)


app.command("backup")(backup_command)
app.command("restore")(restore_command)
app.command("verify")(verify_command)
app.command("doctor")(doctor_command)
app.command("trace")(trace_command)
app.command("redrive")(redrive_command)
app.command("replay")(replay_command)
app.command("rebuild")(rebuild_command)
app.command("rotate-keys")(rotate_keys_command)
app.command("retention")(retention_command)
app.command("partitions")(partitions_command)
app.add_typer(people, name="user")


if __name__ == "__main__":
    app()
