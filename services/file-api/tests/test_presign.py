"""Signed URLs: for the public address, for one thing, for a time."""

from datetime import timedelta
from urllib.parse import parse_qs, urlsplit

import boto3
import pytest
from botocore.config import Config
from file_api.keep.presign import Presigner

HOUR = timedelta(hours=1)


def presigner(public_url: str = "https://files.example.com:8443") -> Presigner:
    return Presigner(public_url=public_url, bucket="tlim-files", region="eu-1", access_key="AK", secret_key="SK")


def read(url: str) -> tuple[str, dict[str, str]]:
    parts = urlsplit(url)
    address = f"{parts.scheme}://{parts.netloc}{parts.path}"
    return address, {name: values[0] for name, values in parse_qs(parts.query, strict_parsing=True).items()}


@pytest.mark.parametrize("public_url", ["https://files.example.com:8443", "https://files.example.com:8443/"])
def test_a_part_is_put_to_the_public_address_with_its_length_signed(public_url: str) -> None:
    address, query = read(presigner(public_url).put_part("files/ab/abc", "up/1+2", 7, 1234, HOUR).url)
    assert address == "https://files.example.com:8443/tlim-files/files/ab/abc"
    assert (query["partNumber"], query["uploadId"], query["X-Amz-Expires"]) == ("7", "up/1+2", "3600")
    assert query["X-Amz-SignedHeaders"] == "content-length;host"


def test_a_download_has_the_type_and_name_that_were_signed() -> None:
    disposition = "attachment; filename=\"__.png\"; filename*=UTF-8''%E7%85%A7%E7%89%87.png"
    url = presigner().get("files/ab/abc", media_type="image/png", disposition=disposition, lifetime=HOUR).url
    query = read(url)[1]
    assert (query["response-content-type"], query["response-content-disposition"]) == ("image/png", disposition)


def test_the_signature_is_the_one_that_the_sdk_makes() -> None:
    client = boto3.client(
        "s3", endpoint_url="https://files.example.com:8443", region_name="eu-1", aws_access_key_id="AK",
        aws_secret_access_key="SK", config=Config(signature_version="s3v4", s3={"addressing_style": "path"}),
    )  # fmt: skip
    disposition = 'attachment; filename="a b.txt"'
    parameters = {
        "ResponseContentType": "text/plain",
        "ResponseContentDisposition": disposition,
        "ResponseCacheControl": "private, no-store",
    }

    def both() -> tuple[str, str]:
        ours = presigner().get("files/ab/abc", media_type="text/plain", disposition=disposition, lifetime=HOUR)
        theirs = client.generate_presigned_url(
            "get_object", Params={"Bucket": "tlim-files", "Key": "files/ab/abc", **parameters}, ExpiresIn=3600
        )
        return ours.url, theirs

    ours, theirs = map(read, both())
    while ours[1]["X-Amz-Date"] != theirs[1]["X-Amz-Date"]:  # a second began in between
        ours, theirs = map(read, both())
    client.close()
    assert ours == theirs
