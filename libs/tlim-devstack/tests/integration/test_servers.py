"""The fixtures give every test real servers that only this machine can reach."""

from pathlib import Path

import httpx
import psutil
import pytest
from tlim_admin.object_store import allow_origins, client
from tlim_devstack import postgres
from tlim_devstack.failures import StackError
from tlim_devstack.pytest_plugin import S3Bucket
from tlim_devstack.servers import PostgresServer, S3Server


def test_every_service_works_with_its_own_role(postgres_server: PostgresServer) -> None:
    inside = postgres.create_database(postgres_server.admin, "roles_test", "file_api")
    owner = postgres_server.login("file_api_owner", "roles_test")
    service = postgres_server.login("file_api", "roles_test")
    postgres.run_sql(owner, "CREATE TABLE things (id bigserial PRIMARY KEY, name text);")
    assert postgres.run_sql(service, "INSERT INTO things (name) VALUES ('a') RETURNING id;") == "1"
    for forbidden in ("DROP TABLE things;", "CREATE TABLE others ();", "TRUNCATE things;"):
        with pytest.raises(StackError, match=r"permission denied|must be owner"):
            postgres.run_sql(service, forbidden)
    with pytest.raises(StackError, match="permission denied"):
        postgres.run_sql(postgres_server.login("message_store", "roles_test"), "SELECT 1;")
    copy = postgres.create_database(postgres_server.admin, "roles_copy", "file_api", template=inside.database)
    assert postgres.run_sql(postgres_server.login("file_api", copy.database), "SELECT name FROM things;") == "a"


def test_the_service_key_works_in_its_bucket_and_creates_none(s3_bucket: S3Bucket) -> None:
    with client(s3_bucket.endpoint, s3_bucket.access_key, s3_bucket.secret_key) as s3:
        s3.put_object(Bucket=s3_bucket.bucket, Key="a", Body=b"bytes")
        assert s3.get_object(Bucket=s3_bucket.bucket, Key="a")["Body"].read() == b"bytes"
        with pytest.raises(s3.exceptions.ClientError, match="AccessDenied"):
            s3.create_bucket(Bucket="of-my-own")


def test_only_pages_of_allowed_origins_may_use_signed_urls(s3_server: S3Server, s3_bucket: S3Bucket) -> None:
    def allowed(origin: str) -> bool:
        asked = {"Origin": origin, "Access-Control-Request-Method": "PUT"}
        url = f"{s3_bucket.endpoint}/{s3_bucket.bucket}/a"
        answer = httpx.options(url, headers=asked, trust_env=False, timeout=20)
        return bool(answer.is_success and answer.headers.get("Access-Control-Allow-Origin") == origin)

    ours, others = "https://chat.example.com", "https://elsewhere.example.com"
    assert not allowed(ours)
    allow_origins(s3_bucket.endpoint, s3_server.admin, s3_bucket.bucket, [ours])
    assert (allowed(ours), allowed(others)) == (True, False)
    allow_origins(s3_bucket.endpoint, s3_server.admin, s3_bucket.bucket, [])
    assert not allowed(ours)


@pytest.mark.usefixtures("nats_server", "postgres_server", "s3_server")
def test_servers_listen_on_loopback_only(test_home: Path, *, in_containers: bool) -> None:
    if in_containers:
        pytest.skip("containers are no children of ours: there is nothing to see of them here")
    listening = [
        (child.name(), connection.laddr.ip)
        for child in psutil.Process().children(recursive=True)
        if str(test_home) in " ".join(child.cmdline())  # other tests may have started other servers
        for connection in child.net_connections("tcp")
        if connection.status == psutil.CONN_LISTEN
    ]
    assert len({name for name, _ in listening}) == 3
    assert {address for _, address in listening} == {"127.0.0.1"}
