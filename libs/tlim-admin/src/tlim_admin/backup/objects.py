"""The objects of S3 that a backup holds: the bytes of files, and their thumbnails."""

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from botocore.exceptions import ClientError

from tlim_admin.backup.manifest import CHUNK, OBJECTS, BackupError, BackupPart
from tlim_admin.backup.tables import NeededBlob
from tlim_admin.object_store import client
from tlim_admin.settings import S3Settings

if TYPE_CHECKING:
    from botocore.response import StreamingBody
    from mypy_boto3_s3 import S3Client

AT_ONCE = 8
"""Objects on their way at a time. More would take the connections that people's downloads need."""

THUMBNAIL_SIZES = (128, 320, 960)
"""The longest sides of file-api's thumbnails, in pixels."""

Given = TypeVar("Given")
Got = TypeVar("Got")

_KEY = re.compile(r"(?P<kind>files|thumbnails)/[0-9a-f]{2}/(?P<blob>[0-9a-f]{32})(?:-[0-9]+)?")


class Bucket:
    """The bucket of files. The key needs Read and List, and for a restore Write."""

    def __init__(self, s3: "S3Client", name: str) -> None:
        self._s3, self._name = s3, name

    def sizes(self) -> dict[str, int]:
        """Return the keys that file-api gives, each with its size in bytes."""
        pages = self._s3.get_paginator("list_objects_v2").paginate(Bucket=self._name)
        listed = (item for page in pages for item in page.get("Contents", []))
        return {item["Key"]: item["Size"] for item in listed if _KEY.fullmatch(item["Key"])}

    def fetch(self, key: str, target: Path) -> BackupPart | None:
        """Write an object into a file; return its size and digest, None if it is not there."""
        body = self._body(key)
        if body is None:
            return None
        target.parent.mkdir(parents=True, exist_ok=True)
        digest, size = hashlib.sha256(), 0
        with target.open("wb") as file:
            for chunk in body.iter_chunks(CHUNK):
                digest.update(chunk)
                size += file.write(chunk)
        return BackupPart(size=size, sha256=digest.hexdigest())

    def digest(self, key: str) -> str | None:
        """Read an object and return its SHA-256 in hex, None if it is not there."""
        body = self._body(key)
        if body is None:
            return None
        digest = hashlib.sha256()
        for chunk in body.iter_chunks(CHUNK):
            digest.update(chunk)
        return digest.hexdigest()

    def _body(self, key: str) -> "StreamingBody | None":
        try:
            return self._s3.get_object(Bucket=self._name, Key=key)["Body"]
        except ClientError as error:
            if error.response["Error"]["Code"] in {"NoSuchKey", "404"}:
                return None
            raise

    def put(self, key: str, source: Path) -> None:
        """Write a file into an object."""
        self._s3.upload_file(str(source), self._name, key)


@contextmanager
def opened(settings: S3Settings) -> Iterator[Bucket]:
    """Lend the bucket that the settings name."""
    access_key, secret_key = settings.s3_access_key.get_secret_value(), settings.s3_secret_key.get_secret_value()
    with client(settings.s3_endpoint_url, access_key, secret_key, settings.s3_region) as s3:
        yield Bucket(s3, settings.s3_bucket)


def path_of(key: str) -> str:
    """Return where a backup has an object."""
    return f"{OBJECTS}/{key}"


def key_of(blob_id: str) -> str:
    """Return the key under which file-api keeps the bytes of a file."""
    return f"files/{blob_id[:2]}/{blob_id}"


def thumbnail_keys_of(blob_id: str) -> list[str]:
    """Return the keys under which file-api keeps the thumbnails of a file, whether or not they were made."""
    return [f"thumbnails/{blob_id[:2]}/{blob_id}-{size}" for size in THUMBNAIL_SIZES]


def keys_in(parts: Iterable[str]) -> list[str]:
    """Return the keys of the objects among the paths of a backup."""
    return [path.removeprefix(f"{OBJECTS}/") for path in parts if path.startswith(f"{OBJECTS}/")]


def wanted(keys: Iterable[str], blobs: Mapping[str, NeededBlob]) -> list[str]:
    """Return the keys that these blobs need: each blob's bytes, and those of its thumbnails that are listed."""
    thumbnails = [key for key in keys if (found := _KEY.fullmatch(key)) and found["kind"] == "thumbnails"
                  and (blob := blobs.get(found["blob"])) and blob.has_thumbnails]  # fmt: skip
    return sorted([*map(key_of, blobs), *thumbnails])


def check_digest(key: str, part: BackupPart, blobs: Mapping[str, NeededBlob]) -> None:
    """Raise BackupError if the bytes of a file are not those that its row names."""
    found = _KEY.fullmatch(key)
    if found and found["kind"] == "files" and part.sha256 != blobs[found["blob"]].sha256:
        raise BackupError(f"S3 gives other bytes for {key} than were uploaded: restore this object first")


def together(work: Callable[[Given], Got], items: Iterable[Given]) -> Iterator[Got]:
    """Do the work for every item, several at a time; give the results in the order of the items."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        try:
            yield from pool.map(work, items)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
