"""The manifest of a backup: written last, so that a folder without one is no backup."""

import hashlib
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

NAME = "manifest.json"
FORMAT = 1
CHUNK = 1024 * 1024


class BackupError(Exception):
    """A backup cannot be made, read or restored; the text says why."""


class BackupPart(BaseModel):
    """A file of the backup: its size in bytes and its SHA-256 in hex."""

    size: int
    sha256: str


class Table(BaseModel):
    """The rows of a table: how many, and a digest that does not depend on their order."""

    rows: int
    digest: str


Tables = dict[str, Table]


class Manifest(BaseModel):
    """What is in a backup. The paths of `parts` are relative to its folder, and all of them are there.

    `databases`: service → table → what was in it when it was dumped. `lost`: objects that rows name and that S3 had not
    any more. `accounts`: how many; None if they are kept elsewhere.
    """

    model_config = ConfigDict(extra="forbid")

    format: int = FORMAT
    made_at: datetime
    databases: dict[str, Tables]
    objects: int
    object_bytes: int
    accounts: int | None
    lost: list[str]
    parts: dict[str, BackupPart]


ACCOUNTS = "accounts.jsonl"
OBJECTS = "objects"


def dump_of(service: str) -> str:
    """Return the name of a database's dump."""
    return f"{service}.dump"


def read(folder: Path) -> Manifest:
    """Read the manifest of a backup; raises BackupError."""
    try:
        manifest = Manifest.model_validate_json((folder / NAME).read_bytes())
    except OSError as error:
        raise BackupError(f"{folder} is no backup: {NAME}: {error.strerror}") from error
    except ValidationError as error:
        raise BackupError(f"{folder / NAME} cannot be understood: {error.errors()[0]['msg']}") from error
    if manifest.format != FORMAT:
        raise BackupError(f"{folder} has format {manifest.format}: this release reads {FORMAT}")
    return manifest


def check_parts(folder: Path, manifest: Manifest) -> Iterator[tuple[str, int]]:
    """Read every file of a backup, and give its path and size. Raises BackupError for one that is not as written."""
    for path, part in manifest.parts.items():
        try:
            found = measure(folder / path)
        except OSError as error:
            raise BackupError(f"{path} of the backup cannot be read: {error.strerror}") from error
        if found != part:
            raise BackupError(f"{path} of the backup is damaged: it is not what was written")
        yield path, part.size


def measure(file: Path) -> BackupPart:
    """Read a file and return its size and digest."""
    digest, size = hashlib.sha256(), 0
    with file.open("rb") as stream:
        while chunk := stream.read(CHUNK):
            digest.update(chunk)
            size += len(chunk)
    return BackupPart(size=size, sha256=digest.hexdigest())
