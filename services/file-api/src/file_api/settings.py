"""The settings of file-api, read from its environment."""

from datetime import timedelta
from pathlib import Path
from typing import ClassVar

from pydantic import Field, SecretStr
from tlim_runtime.settings import DatabaseSettings, ServiceSettings
from tlim_runtime.throttle import Rate

from file_api.keep.storage import MAX_CONNECTIONS, MAX_PARTS, PART_BYTES


class Settings(ServiceSettings, DatabaseSettings):
    """The settings of this service: those every service has, where the bytes go, and the limits of uploads."""

    service: ClassVar[str] = "file-api"

    s3_endpoint_url: str
    """Where S3 is."""
    s3_public_url: str | None = Field(default=None, pattern="^https?://[^/]+/?$")
    """Scheme, host and port of the gateway's door to S3; without it clients send everything through this service."""
    s3_bucket: str = "tlim-files"
    """The bucket of files."""
    s3_region: str = "us-east-1"
    """The region that requests are signed for."""
    s3_access_key: SecretStr
    """The name of a key that may read, write and list in this bucket only."""
    s3_secret_key: SecretStr
    """The secret of the key."""

    max_upload_bytes: int = Field(default=2 * 1024**3, ge=1, le=MAX_PARTS * PART_BYTES)
    """The largest file."""
    upload_timeout: timedelta = timedelta(hours=6)
    """An upload that takes longer is given up: 2 GiB at 1 Mbit/s take less than 5 hours."""
    pending_expiry: timedelta = timedelta(hours=12)
    """An upload of a killed process is removed this long after it began. Keep it above `upload_timeout`, so that no
    running upload is taken for a dead one."""
    direct_upload_expiry: timedelta = timedelta(hours=24)
    """A direct upload can be resumed until this long after it began."""
    part_url_lifetime: timedelta = Field(default=timedelta(hours=1), ge=timedelta(seconds=1), le=timedelta(days=7))
    """A client can ask for a new URL at any time while the upload is open."""
    download_url_lifetime: timedelta = Field(
        default=timedelta(seconds=60), ge=timedelta(seconds=1), le=timedelta(seconds=60)
    )
    """The URL's bearer may begin to read the file until then, also after a recall. So it cannot be longer."""
    workers: int = Field(default=2, ge=1)
    """How many images and recordings are looked into at once, each in a process of at most 1 GiB."""
    examine_interval: timedelta = timedelta(seconds=5)
    """How often we look for new files without known width, height or duration."""
    user_quota_bytes: int = Field(default=10 * 1024**3, ge=1)
    """What one user's files and running uploads may have together. A received file counts for its uploader only."""
    uploads_per_user: Rate = "120/minute"
    """Enough for an album of pictures at once. A program out of control does not fill the disk."""
    clamd_socket: Path | None = None
    """The virus scanner's Unix socket; without it and `clamd_host` nothing is scanned."""
    clamd_host: str | None = None
    """The virus scanner's host, instead of a socket."""
    clamd_port: int = Field(default=3310, ge=1, le=65_535)
    """The virus scanner's port."""
    scan_max_bytes: int = Field(default=100 * 1024**2, ge=1, lt=4 * 1024**3)
    """Larger files are not scanned; clamd's StreamMaxLength, which is 100 MiB by default, must not be below."""
    scans_at_once: int = Field(default=2, ge=1)
    """How many files one process has scanned at a time."""
    scan_interval: timedelta = timedelta(seconds=5)
    """How often we look for files that another process left unscanned. New files are scanned at once."""
    open_direct_uploads_per_user: int = Field(default=32, ge=1)
    """Begun and neither complete nor aborted: each has parts in S3 that are in no listing of files."""
    running_uploads_per_user: int = Field(default=8, ge=1)
    """How many uploads of one user run at a time."""
    running_uploads: int = Field(default=50, ge=1, le=50)
    """Of all users in one process: each may hold 8 MiB."""
    running_downloads_per_user: int = Field(default=20, ge=1)
    """How many downloads of one user run at a time."""
    running_downloads: int = Field(default=200, ge=1, le=MAX_CONNECTIONS - 100)
    """Of all users in one process: each holds a connection to S3, of which uploads and scans need some too."""
    stall_timeout: timedelta = Field(default=timedelta(seconds=30), gt=timedelta(0))
    """A transfer is given up when its client sends or takes nothing for this long."""
    min_bytes_per_second: int = Field(default=4096, ge=1)
    """A transfer is also given up when its average over a `stall_timeout` of waiting for the client is below this. The
    default is a quarter of what GPRS brings."""
    unsent_expiry: timedelta = Field(default=timedelta(days=90), ge=timedelta(0))
    """A file that no message has carried is deleted this long after its upload; 0: never. Once sent, it stays until
    its uploader deletes it."""
    sweep_interval: timedelta = timedelta(minutes=15)
    """How often we remove what belongs to nobody."""

    @property
    def clamd_address(self) -> Path | tuple[str, int] | None:
        """Where the virus scanner is; None: there is none."""
        if self.clamd_socket is not None:
            return self.clamd_socket
        return None if self.clamd_host is None else (self.clamd_host, self.clamd_port)
