"""Checks of S3: what the key may do, the bytes, the public address, and the clock."""

import asyncio
import secrets
import time
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from botocore.exceptions import BotoCoreError, ClientError

from tlim_admin.backup.objects import key_of
from tlim_admin.doctor.clocks import judge_date
from tlim_admin.doctor.findings import Finding, fine, skipped, wrong
from tlim_admin.http import ask
from tlim_admin.object_store import client
from tlim_admin.settings import DoctorSettings

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

_BODY = b"tlim doctor"


async def look(settings: DoctorSettings) -> list[Finding]:
    """Write an object, read it, read it by the address that people get, and remove it; try an upload of parts."""
    key = key_of(secrets.token_hex(16))  # as those of file-api: the gateway lets no others through
    access_key, secret_key = settings.s3_access_key.get_secret_value(), settings.s3_secret_key.get_secret_value()
    with client(settings.s3_endpoint_url, access_key, secret_key, settings.s3_region) as s3:
        began = time.time()
        answer = await asyncio.to_thread(lambda: s3.put_object(Bucket=settings.s3_bucket, Key=key, Body=_BODY))
        ended = time.time()
        try:
            body = (await asyncio.to_thread(lambda: s3.get_object(Bucket=settings.s3_bucket, Key=key)))["Body"]
            findings = [_reads(await asyncio.to_thread(body.read))]
            findings.append(await asyncio.to_thread(uploads, s3, settings.s3_bucket, key))
            date = answer["ResponseMetadata"]["HTTPHeaders"].get("date")
            findings.append(judge_date("S3", date, began, ended))
            findings.append(await _public(settings, key))
        finally:
            await asyncio.to_thread(lambda: s3.delete_object(Bucket=settings.s3_bucket, Key=key))
    return findings


def _reads(read: bytes) -> Finding:
    if read != _BODY:
        return wrong("S3", "gives other bytes than were written", "do not use this S3")
    return fine("S3", "takes, gives and removes an object")


def uploads(s3: "S3Client", bucket: str, key: str) -> Finding:
    """Begin an upload of parts under the key of an object, list both, and abort the upload, as file-api does."""
    name = "S3 uploads"
    try:
        objects = s3.list_objects_v2(Bucket=bucket, Prefix=key).get("Contents", [])
        upload_id = s3.create_multipart_upload(Bucket=bucket, Key=key)["UploadId"]
        try:
            unfinished = s3.list_multipart_uploads(Bucket=bucket, Prefix=key).get("Uploads", [])
            s3.list_parts(Bucket=bucket, Key=key, UploadId=upload_id)
        finally:
            s3.abort_multipart_upload(Bucket=bucket, Key=key, UploadId=upload_id)
    except ClientError as error:
        return wrong(name, str(error), "permit the key every action that deploy/compose/external-s3.yml names")
    if [one["Key"] for one in objects] != [key] or [one["UploadId"] for one in unfinished] != [upload_id]:
        return wrong(name, "does not list what it has", "do not use this S3")
    return fine(name, "are begun, listed and aborted")


async def _public(settings: DoctorSettings, key: str) -> Finding:
    name, public_url = "S3 public address", settings.s3_public_url
    if not public_url:  # compose hands an empty one on
        return skipped(name, "TLIM_S3_PUBLIC_URL")
    access_key, secret_key = settings.s3_access_key.get_secret_value(), settings.s3_secret_key.get_secret_value()
    advice = "people get this address: it must lead to S3, and keep the Host header, which is signed"
    with client(public_url, access_key, secret_key, settings.s3_region) as s3:
        try:
            url = s3.generate_presigned_url("get_object", Params={"Bucket": settings.s3_bucket, "Key": key})
            answer = await ask(*reached(url, settings.s3_public_via), authority=settings.xmpp_ca_file)
        except (OSError, BotoCoreError, ClientError) as error:
            return wrong(name, f"{public_url}: {error}", advice)
    if answer.status != 200 or answer.body != _BODY:
        return wrong(name, f"{public_url} answers {answer.status}", advice)
    return fine(name, public_url)


def reached(url: str, via: str | None) -> tuple[str, dict[str, str]]:
    """Return the URL to ask, and headers: with `via` and an address of loopback another server, for the same host."""
    parts = urlsplit(url)
    if not via or parts.hostname not in {"127.0.0.1", "localhost", "::1"}:
        return url, {}
    return parts._replace(netloc=via).geturl(), {"Host": parts.netloc}
