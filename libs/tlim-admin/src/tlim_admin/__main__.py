"""The operator's command: `tlim-admin`, or `python -m tlim_admin`."""

import asyncio
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from botocore.exceptions import BotoCoreError, ClientError
from pydantic import SecretStr
from tlim_runtime.database import driver_url
from tlim_runtime.settings import DatabaseLogin, load_settings

from tlim_admin import databases, object_store, secret_files
from tlim_admin.databases import DatabasesError
from tlim_admin.object_store import ADMIN_ACTIONS, S3Key
from tlim_admin.secret_files import SecretError
from tlim_admin.settings import BucketSettings

OWNER = 10_001
"""The user of all our containers, for ever: the volumes belong to it."""

app = typer.Typer(name="tlim-admin", no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
SecretsFolder = Annotated[Path, typer.Argument(help="the folder of the secrets")]


@app.callback()
def tlim_admin() -> None:
    """Prepare and look after a deployment of tlim."""


@app.command()
def secrets(
    folder: SecretsFolder,
    domain: Annotated[str, typer.Option(help="the XMPP domain, for the self-made certificate")] = "im.itonglian.com",
    owner: Annotated[int, typer.Option(help="the user that the files belong to, if root makes them")] = OWNER,
) -> None:
    """Make the secrets that are missing. Those that are there stay as they are."""
    with _one_line():
        written = secret_files.write_missing(folder, domain, owner)
    typer.echo(f"written: {', '.join(written)}" if written else "all secrets are there")


@app.command()
def check_secrets(folder: SecretsFolder) -> None:
    """Check that all secrets are there, that they are hard to guess, and that the derived files fit."""
    with _one_line():
        secret_files.check(folder)


@app.command("databases")
def prepare_databases(folder: SecretsFolder) -> None:
    """Create the roles and databases that are missing; TLIM_DATABASE_URL is a superuser's."""
    url = driver_url(load_settings(DatabaseLogin).database_url.get_secret_value())
    with _one_line():
        passwords = secret_files.role_passwords(folder)
        created = asyncio.run(databases.prepare(SecretStr(url), passwords))
    typer.echo(f"created: {', '.join(created)}" if created else "all databases are there")


@app.command()
def bucket() -> None:
    """Create the bucket of files if it is missing, and let the web pages of TLIM_CORS_ORIGINS use it."""
    settings = load_settings(BucketSettings)
    access_key, secret_key = settings.s3_access_key.get_secret_value(), settings.s3_secret_key.get_secret_value()
    key = S3Key("admin", access_key, secret_key, ADMIN_ACTIONS)
    where = settings.s3_endpoint_url
    with _one_line():
        object_store.ensure_bucket(where, key, settings.s3_bucket, settings.s3_region)
        object_store.allow_origins(where, key, settings.s3_bucket, settings.cors_origins, settings.s3_region)


@contextmanager
def _one_line() -> Iterator[None]:
    """Say in one line what went wrong, and exit with 1."""
    try:
        yield
    except (SecretError, DatabasesError, BotoCoreError, ClientError, OSError) as error:
        sys.stderr.write(f"tlim-admin: {error}\n")
        raise SystemExit(1) from None


if __name__ == "__main__":
    app()
