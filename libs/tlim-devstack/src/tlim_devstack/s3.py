"""S3 from the SeaweedFS wheel: keys, buckets, and the command that runs only the needed parts."""

from collections.abc import Sequence
from pathlib import Path

from botocore.exceptions import BotoCoreError, ClientError
from tlim_admin.object_store import S3Key, client, ensure_bucket, identities_document

from tlim_devstack.certificates import write_mutual_certificates
from tlim_devstack.failures import StackError
from tlim_devstack.layout import program
from tlim_devstack.private_files import write_private

# Make one new volume at a time instead of seven: so the bucket of a test costs one file.
ENVIRONMENT = {"WEED_MASTER_VOLUME_GROWTH_COPY_1": "1"}
# Ports beside the one of S3 itself: HTTP and gRPC of master, volume and filer, and gRPC of S3.
INNER_PORTS = 7


def write_identities(directory: Path, keys: Sequence[S3Key]) -> Path:
    """Put the file for `-s3.config` into `directory`, which must exist; returns its path."""
    file = directory / "identities.json"
    write_private(file, identities_document(keys))
    return file


def secure(directory: Path) -> dict[str, str]:
    """Return the environment with which the parts of `weed` answer each other only; `directory` takes certificates.

    HTTP and gRPC of master, volume and filer ask for a certificate of an authority that signs no other one. Without
    this, every user of the machine could read and write all files. The keys are new at each call, because only one
    process needs them.
    """
    authority, certificate = write_mutual_certificates(directory)
    grpc = [f"GRPC_{part}" for part in ("MASTER", "VOLUME", "FILER", "S3", "CLIENT")]
    http = [f"HTTPS_{part}" for part in ("MASTER", "VOLUME", "FILER", "CLIENT")]
    return {
        **ENVIRONMENT,
        "WEED_HTTPS_CLIENT_ENABLED": "true",
        **{f"WEED_{part}_CA": str(authority) for part in ("GRPC", *http)},
        **{f"WEED_{part}_{file}": str(certificate) for part in (*grpc, *http) for file in ("CERT", "KEY")},
    }


def command(data: Path, identities: Path, s3_port: int, inner_ports: Sequence[int]) -> list[str]:
    """Return the command line: master, volume, filer and S3 on loopback, everything else of `weed` switched off."""
    master, master_grpc, volume, volume_grpc, filer, filer_grpc, s3_grpc = inner_ports
    options: dict[str, object] = {
        "dir": data,
        "ip": "127.0.0.1",
        "ip.bind": "127.0.0.1",
        "disableHttp": "true",  # all parts of `weed` speak gRPC with the master
        "master.port": master,
        "master.port.grpc": master_grpc,
        "master.telemetry": "false",
        "master.electionTimeout": "1s",
        "master.volumeSizeLimitMB": 1024,
        "volume.port": volume,
        "volume.port.grpc": volume_grpc,
        "volume.max": 0,
        "volume.preStopSeconds": 0,
        "filer": "true",
        "filer.disableHttp": "true",  # they speak gRPC with the filer, too
        "filer.port": filer,
        "filer.port.grpc": filer_grpc,
        "s3": "true",
        "s3.port": s3_port,
        "s3.port.grpc": s3_grpc,
        "s3.port.iceberg": 0,
        "s3.port.lance": 0,
        "s3.iam": "false",
        "s3.allowedOrigins": "",  # the bucket's own CORS rules decide, as on any other S3
        "s3.config": identities,
    }
    return [str(program("weed")), "-logtostderr", "server", *(f"-{name}={value}" for name, value in options.items())]


def remove_sockets(s3_port: int, inner_ports: Sequence[int]) -> None:
    """Remove the Unix sockets that a killed `weed` leaves in /tmp. It has no option to put them elsewhere.

    Raises StackError for a socket of another user. If it stayed, `weed` would wait for itself for ever.
    """
    for port in (s3_port, *inner_ports):
        for socket in Path("/tmp").glob(f"seaweedfs-*-{port}.sock"):  # noqa: S108  # weed's choice
            try:
                socket.unlink(missing_ok=True)
            except PermissionError as error:
                raise StackError(f"{socket} is another user's: remove it, or change TLIM_PORT_S3_*") from error


def delete_bucket(endpoint: str, key: S3Key, bucket: str) -> None:
    """Delete a bucket and everything in it. SeaweedFS does so at once; other S3 servers refuse unless it is empty."""
    with client(endpoint, key.access_key, key.secret_key) as s3:
        s3.delete_bucket(Bucket=bucket)


def takes_writes(endpoint: str, key: S3Key, bucket: str) -> bool:
    """Whether S3 and its volume server work: we write an object into the bucket, and create the bucket if needed."""
    try:
        ensure_bucket(endpoint, key, bucket)
        with client(endpoint, key.access_key, key.secret_key) as s3:
            s3.put_object(Bucket=bucket, Key=".ready", Body=b"")
    except (BotoCoreError, ClientError):
        return False
    return True
