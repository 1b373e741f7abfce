"""URLs by which clients reach S3 themselves: signed here, with Signature Version 4 in the query, without asking S3."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import NamedTuple, cast
from urllib.parse import quote

from botocore.auth import S3SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials


class SignedUrl(NamedTuple):
    """A URL whose bearer may make one kind of request, any number of times until `expires_at`."""

    url: str
    expires_at: datetime


class Presigner:
    """Signs for the address at which clients see S3; the host is part of what is signed."""

    def __init__(self, *, public_url: str, bucket: str, region: str, access_key: str, secret_key: str) -> None:
        self._bucket_url = f"{public_url.rstrip('/')}/{quote(bucket)}"
        self._region = region
        self._credentials = Credentials(access_key, secret_key)

    def put_part(self, key: str, s3_upload_id: str, number: int, size: int, lifetime: timedelta) -> SignedUrl:
        """Return a URL for the PUT of exactly `size` bytes as one part of a multipart upload. The PUT may be repeated.

        The length is signed: S3 refuses more and fewer bytes, and bodies without a Content-Length.
        """
        parameters = {"partNumber": str(number), "uploadId": s3_upload_id}
        return self._sign("PUT", key, parameters, lifetime, {"Content-Length": str(size)})

    def get(self, key: str, *, media_type: str, disposition: str, lifetime: timedelta) -> SignedUrl:
        """Return a URL for the download of an object under that type and Content-Disposition."""
        parameters = {
            "response-content-type": media_type,
            "response-content-disposition": disposition,
            "response-cache-control": "private, no-store",
        }
        return self._sign("GET", key, parameters, lifetime, {})

    def _sign(
        self, method: str, key: str, parameters: Mapping[str, str], lifetime: timedelta, headers: Mapping[str, str]
    ) -> SignedUrl:
        expires_at = datetime.now(UTC) + lifetime
        request = AWSRequest(method, f"{self._bucket_url}/{quote(key)}", dict(headers), params=dict(parameters))
        S3SigV4QueryAuth(self._credentials, "s3", self._region, int(lifetime.total_seconds())).add_auth(request)
        return SignedUrl(cast("str", request.url), expires_at.replace(microsecond=0))
