"""Dumps of databases by PostgreSQL's own programs, pg_dump and pg_restore."""

import asyncio
import os
import shutil
from pathlib import Path

from tlim_admin.backup.manifest import BackupError
from tlim_admin.backup.postgres_tls import speaking_tls
from tlim_admin.backup.tables import OwnerLogin
from tlim_admin.postgres_programs import program_in_wheel


def program(name: str) -> str:
    """Return the path of a program of PostgreSQL: of its wheel if that is installed, else of the system."""
    found = program_in_wheel(name) or shutil.which(name)
    if found is None:
        raise BackupError(f"{name} is not installed: install the client programs of PostgreSQL 18")
    return str(found)


async def dump(login: OwnerLogin, snapshot: str, target: Path) -> None:
    """Write a database into a file, as that snapshot of it sees the rows. Raises BackupError."""
    options = ["--format=custom", "--no-owner", f"--snapshot={snapshot}", f"--file={target}"]
    await _run("pg_dump", login, options)


async def restore(login: OwnerLogin, source: Path) -> None:
    """Put a dump into an empty database, all of it or nothing. Raises BackupError."""
    await _run("pg_restore", login, ["--no-owner", "--single-transaction", "--exit-on-error", str(source)])


async def probe(login: OwnerLogin) -> None:
    """Let pg_dump read the definitions of a database, as a backup does. Raises BackupError."""
    await _run("pg_dump", login, ["--schema-only", f"--file={os.devnull}"])


async def _run(name: str, login: OwnerLogin, options: list[str]) -> None:
    async with speaking_tls(login.url) as url:
        await _wait_for([program(name), "--no-password", f"--dbname={url}", *options], login)


async def _wait_for(command: list[str], login: OwnerLogin) -> None:
    environment = {**os.environ, "PGPASSWORD": login.password, "PGCONNECT_TIMEOUT": "10"}
    try:
        process = await asyncio.create_subprocess_exec(
            *command, env=environment, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE
        )
    except OSError as error:
        raise BackupError(f"{command[0]} cannot be started: {error.strerror}") from error
    try:
        _, said = await process.communicate()
    except BaseException:
        process.kill()
        await process.wait()
        raise
    if process.returncode != 0:
        raise BackupError(f"{login.service}: {' '.join(said.decode(errors='replace').split())}")
