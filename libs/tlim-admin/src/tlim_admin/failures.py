"""How a command fails: one line on stderr, and exit status 1."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from botocore.exceptions import BotoCoreError, ClientError

from tlim_admin.backup.manifest import BackupError
from tlim_admin.databases import DatabasesError
from tlim_admin.env_file import EnvFileError
from tlim_admin.plain_http import PlainHttpError
from tlim_admin.secret_files import SecretError


@contextmanager
def one_line() -> Iterator[None]:
    """Say in one line what went wrong, and exit with 1."""
    try:
        yield
    except (
        SecretError,
        EnvFileError,
        PlainHttpError,
        DatabasesError,
        BackupError,
        BotoCoreError,
        ClientError,
        OSError,
    ) as error:
        sys.stderr.write(f"tlim-admin: {error}\n")
        raise SystemExit(1) from None
