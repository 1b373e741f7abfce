"""The databases of all services and a bucket, as the operator's command finds them, with no service running."""

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

import asyncpg
import pytest
import pytest_asyncio
from pydantic import SecretStr
from tlim_admin.backup.tables import OwnerLogin
from tlim_admin.databases import DATABASE_SERVICES
from tlim_admin.settings import S3Settings
from tlim_devstack.pytest_plugin import S3Bucket
from tlim_runtime.transactions import Connection


@dataclass(frozen=True)
class Data:
    """The three databases: logins of the tables' owners, and a connection to each."""

    logins: dict[str, OwnerLogin]
    sessions: Connection
    store: Connection
    files: Connection


@pytest_asyncio.fixture
async def data(make_database: Callable[[str], str], owner_url: Callable[[str, str], str]) -> AsyncIterator[Data]:
    async with AsyncExitStack() as stack:
        logins, connections = {}, {}
        for service in DATABASE_SERVICES:
            url = owner_url(service, make_database(service)).replace("+asyncpg", "")
            logins[service] = OwnerLogin(service, url, unquote(urlsplit(url).password or ""))
            connections[service] = await asyncpg.connect(url)
            stack.push_async_callback(connections[service].close)
        yield Data(logins, connections["session_api"], connections["message_store"], connections["file_api"])


@pytest.fixture
def s3_settings(s3_bucket: S3Bucket) -> S3Settings:
    return S3Settings(
        s3_endpoint_url=s3_bucket.endpoint,
        s3_bucket=s3_bucket.bucket,
        s3_region=s3_bucket.region,
        s3_access_key=SecretStr(s3_bucket.access_key),
        s3_secret_key=SecretStr(s3_bucket.secret_key),
    )
