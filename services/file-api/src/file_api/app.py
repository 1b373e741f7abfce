"""The application: opens what the service needs in order, closes it in reverse."""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager

from fastapi import FastAPI
from tlim_protocol.subjects import Rpc
from tlim_runtime.app import build_app
from tlim_runtime.broker import Broker
from tlim_runtime.database import Database
from tlim_runtime.outbox import OutboxRelay
from tlim_runtime.throttle import Throttle

from file_api import direct_endpoints, endpoints, legacy_endpoints, preview_endpoints
from file_api.access import Access
from file_api.admission import Admission
from file_api.direct import DirectUploads
from file_api.disposal import Disposal
from file_api.download_urls import DownloadUrls
from file_api.examiner import Examiner
from file_api.inspector import Inspector
from file_api.models import OUTBOX
from file_api.presign import Presigner
from file_api.previews import Previews
from file_api.repository import transactions
from file_api.service import FileService
from file_api.settings import Settings
from file_api.storage import Storage, open_storage
from file_api.subscribers import check_responder, message_store_asker
from file_api.sweeper import Sweeper


def create_app(settings: Settings) -> FastAPI:
    """Return the application; nothing is opened before its lifespan starts."""
    return build_app(
        title="tlim file-api",
        version="1",
        settings=settings,
        lifespan=lifespan,
        routers=[legacy_endpoints.router, direct_endpoints.router, preview_endpoints.router, endpoints.router],
    )


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Open database, S3 and broker, then what works on them, each with its ping for /readyz; close them in reverse."""
    settings: Settings = app.state.settings
    async with AsyncExitStack() as stack:
        database = Database(settings.database_url.get_secret_value(), settings.database_pool_size)
        stack.push_async_callback(database.close)
        storage = await stack.enter_async_context(_storage(settings))
        broker = await Broker.connect(
            settings.nats_url, settings.nats_user, settings.nats_password.get_secret_value(), settings.service
        )
        stack.push_async_callback(broker.close)
        relay = OutboxRelay(database, broker, OUTBOX)
        await relay.start()
        stack.push_async_callback(relay.stop)

        disposal = Disposal(transactions(database), storage)
        throttle = Throttle(settings.uploads_per_user, "user")
        admission = Admission(transactions(database), throttle, quota_bytes=settings.user_quota_bytes)
        files = FileService(
            transactions(database),
            storage,
            disposal,
            admission,
            lambda: relay.flush(timeout_s=0),  # it wakes the relay and does not wait: the row is safe
            max_upload_bytes=settings.max_upload_bytes,
            upload_timeout=settings.upload_timeout,
            pending_expiry=settings.pending_expiry,
        )
        access = Access(transactions(database), message_store_asker(broker))
        await broker.respond(Rpc.FILE_CHECK, check_responder(access), settings.service)
        sweeper = Sweeper(disposal, settings.sweep_interval)
        await sweeper.start()
        stack.push_async_callback(sweeper.stop)

        previews = Previews(transactions(database), storage, Inspector(settings.workers))
        examiner = Examiner(previews, settings.examine_interval)
        await examiner.start()
        stack.push_async_callback(examiner.stop)

        app.state.files = files
        app.state.previews = previews
        app.state.direct = app.state.download_urls = None
        if presigner := _presigner(settings):
            direct = _direct(
                settings=settings,
                database=database,
                storage=storage,
                presigner=presigner,
                files=files,
                disposal=disposal,
                admission=admission,
            )
            stack.push_async_callback(direct.close)
            app.state.direct = direct
            app.state.download_urls = DownloadUrls(presigner, files.announce_download, settings.download_url_lifetime)
        app.state.disposal = disposal
        app.state.admission = admission
        app.state.access = access
        app.state.health.add("database", database.ping)
        app.state.health.add("storage", storage.ping)
        app.state.health.add("broker", broker.ping)
        app.state.health.add("outbox", relay.ping)
        yield


def _storage(settings: Settings) -> AbstractAsyncContextManager[Storage]:
    return open_storage(
        endpoint_url=settings.s3_endpoint_url,
        bucket=settings.s3_bucket,
        region=settings.s3_region,
        access_key=settings.s3_access_key,
        secret_key=settings.s3_secret_key.get_secret_value(),
    )


def _presigner(settings: Settings) -> Presigner | None:
    if settings.s3_public_url is None:
        return None
    return Presigner(
        public_url=settings.s3_public_url,
        bucket=settings.s3_bucket,
        region=settings.s3_region,
        access_key=settings.s3_access_key,
        secret_key=settings.s3_secret_key.get_secret_value(),
    )


def _direct(
    *,
    settings: Settings,
    database: Database,
    storage: Storage,
    presigner: Presigner,
    files: FileService,
    disposal: Disposal,
    admission: Admission,
) -> DirectUploads:
    return DirectUploads(
        transactions(database),
        storage,
        presigner,
        files,
        disposal,
        admission=admission,
        expiry=settings.direct_upload_expiry,
        url_lifetime=settings.part_url_lifetime,
        completion_timeout=settings.upload_timeout,
    )
