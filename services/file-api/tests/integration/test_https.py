"""S3 over HTTPS: the variable for its authority, and no other authority."""

from pathlib import Path
from urllib.parse import urlsplit

import pytest
from file_api.keep.storage import StorageUnavailable, open_storage
from tlim_devstack.certificates import ensure_certificates
from tlim_devstack.pytest_plugin import S3Bucket
from tlim_devstack.tls_door import tls_door


async def test_s3_is_reached_over_https_and_only_with_its_own_authority(
    s3_bucket: S3Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority, certificate = ensure_certificates(tmp_path / "certificates", "server.example")
    key = {"bucket": s3_bucket.bucket, "region": s3_bucket.region, "access_key": s3_bucket.access_key}
    server = urlsplit(s3_bucket.endpoint)
    assert server.hostname is not None
    assert server.port is not None
    async with tls_door(server.hostname, server.port, certificate) as port:
        url = f"https://127.0.0.1:{port}"
        monkeypatch.setenv("AWS_CA_BUNDLE", str(authority))
        async with open_storage(endpoint_url=url, secret_key=s3_bucket.secret_key, **key) as storage:
            await storage.ping()
        monkeypatch.setenv("AWS_CA_BUNDLE", str(ensure_certificates(tmp_path / "others", "server.example")[0]))
        async with open_storage(endpoint_url=url, secret_key=s3_bucket.secret_key, **key) as storage:
            with pytest.raises(StorageUnavailable, match="SSL validation failed"):
                await storage.ping()
