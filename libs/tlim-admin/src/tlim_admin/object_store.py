"""S3: the keys and what each may do, the bucket of files, and the web pages that may use it."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import boto3
from botocore.config import Config

FILES_BUCKET = "tlim-files"
REGION = "us-east-1"


@dataclass(frozen=True)
class S3Key:
    """An access key and its permitted actions (Admin, Read, Write, List; `Read:bucket` for one bucket)."""

    name: str
    access_key: str
    secret_key: str
    actions: tuple[str, ...]


ADMIN_ACTIONS = ("Admin", "Read", "Write", "List")


def actions_on(bucket: str) -> tuple[str, ...]:
    """Return the permitted actions of a service that works in one bucket."""
    return tuple(f"{verb}:{bucket}" for verb in ("Read", "Write", "List"))


def identities_document(keys: Sequence[S3Key]) -> str:
    """Return the file for SeaweedFS' `-s3.config`: the keys and what each may do."""
    identities = [
        {
            "name": key.name,
            "credentials": [{"accessKey": key.access_key, "secretKey": key.secret_key}],
            "actions": list(key.actions),
        }
        for key in keys
    ]
    return json.dumps({"identities": identities}, indent=1)


@contextmanager
def client(endpoint: str, access_key: str, secret_key: str, region: str = REGION) -> Iterator[Any]:
    """Lend a synchronous S3 client for set-up work (boto3, which has no types of its own)."""
    s3 = boto3.client(
        "s3",
        endpoint_url=endpoint,
        aws_access_key_id=access_key,
        aws_secret_access_key=secret_key,
        region_name=region,
        config=Config(
            connect_timeout=2,
            read_timeout=10,
            retries={"max_attempts": 0},
            signature_version="s3v4",
            s3={"addressing_style": "path"},  # not every server resolves bucket.host
        ),
    )
    try:
        yield s3
    finally:
        s3.close()


def ensure_bucket(endpoint: str, key: S3Key, bucket: str, region: str = REGION) -> None:
    """Create the bucket unless it exists."""
    with client(endpoint, key.access_key, key.secret_key, region) as s3:
        if bucket not in {item["Name"] for item in s3.list_buckets()["Buckets"]}:
            with suppress(s3.exceptions.BucketAlreadyOwnedByYou):  # somebody else has, or our question was asked twice
                s3.create_bucket(Bucket=bucket)


def allow_origins(endpoint: str, key: S3Key, bucket: str, origins: Sequence[str], region: str = REGION) -> None:
    """Let web pages of these origins, and of no others, use signed URLs of the bucket (CORS)."""
    with client(endpoint, key.access_key, key.secret_key, region) as s3:
        if not origins:
            s3.delete_bucket_cors(Bucket=bucket)
            return
        rule = {
            "AllowedOrigins": list(origins),
            "AllowedMethods": ["GET", "HEAD", "PUT"],
            "AllowedHeaders": ["*"],
            "ExposeHeaders": ["ETag"],
            "MaxAgeSeconds": 3600,
        }
        s3.put_bucket_cors(Bucket=bucket, CORSConfiguration={"CORSRules": [rule]})
