"""The application: opens what the service needs in order, closes it in reverse."""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager

from fastapi import FastAPI
from tlim_protocol.subjects import Rpc
from tlim_runtime.app import build_app
from tlim_runtime.background import Repeated
from tlim_runtime.broker import Broker
from tlim_runtime.clocks import compared_clock
from tlim_runtime.database import QUESTIONS_POOL, Database
from tlim_runtime.deactivation import asked_of_session_api, deactivated_users_refused
from tlim_runtime.outbox import OutboxRelay
from tlim_runtime.reports import reporting
from tlim_runtime.shared_limits import limits_shared
from tlim_runtime.throttle import Throttle

from file_api import endpoints, legacy_endpoints
from file_api.access import Access
from file_api.download.urls import DownloadUrls
from file_api.inspect.inspector import Inspector
from file_api.keep.clamd import Clamd
from file_api.keep.disposal import Disposal
from file_api.keep.orphans import Orphans
from file_api.keep.presign import Presigner
from file_api.keep.quarantine import SCAN_TIMEOUT, Quarantine
from file_api.keep.storage import Storage, open_storage
from file_api.media import endpoints as media_endpoints
from file_api.media.previews import Previews
from file_api.metrics import FileMetrics
from file_api.models import OUTBOX
from file_api.repository import Transaction, transactions
from file_api.running import Running
from file_api.service import FileService
from file_api.settings import Settings
from file_api.subscribers import check_responder, message_store_asker
from file_api.upload import direct_endpoints
from file_api.upload.admission import Admission
from file_api.upload.direct import DirectUploads


def create_app(settings: Settings) -> FastAPI:
    """Return the application; nothing is opened before its lifespan starts."""
    return build_app(
        title="tlim file-api",
        version="0.1.0",
        settings=settings,
        lifespan=lifespan,
        routers=[legacy_endpoints.router, direct_endpoints.router, media_endpoints.router, endpoints.router],
    )


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Open database, S3 and broker, then what works on them, each with its ping for /readyz; close them in reverse."""
    settings: Settings = app.state.settings
    async with AsyncExitStack() as stack:
        database = Database(settings.database_url.get_secret_value(), settings.database_pool_size)
        stack.push_async_callback(database.close)
        storage = await stack.enter_async_context(_storage(settings))
        broker = await Broker.of_service(settings, app.state.metrics.tracing)
        stack.push_async_callback(broker.close)
        relay = OutboxRelay(database, broker, OUTBOX, app.state.metrics)
        await relay.start()
        stack.push_async_callback(relay.stop)

        questions = Database(settings.database_url.get_secret_value(), QUESTIONS_POOL)
        stack.push_async_callback(questions.close)
        asker = message_store_asker(broker)
        await broker.respond(Rpc.FILE_CHECK, check_responder(Access(transactions(questions), asker)), settings.service)
        app.state.access = Access(transactions(database), asker)
        app.state.pace = Throttle(settings.uploads_per_user, "user")
        await _assemble(app, stack, database, storage, relay)
        app.state.health.add("database", questions.ping)
        app.state.health.add("storage", storage.ping)
        app.state.health.add("broker", broker.ping)
        app.state.tokens.looked_after(app.state.health)
        app.state.health.add("outbox", relay.ping)
        limits = {"uploads": app.state.pace}
        await stack.enter_async_context(limits_shared(broker, settings.service, app.state.metrics, limits=limits))
        await stack.enter_async_context(compared_clock(broker, app.state.health))
        asked, tokens = asked_of_session_api(broker), app.state.tokens
        await stack.enter_async_context(deactivated_users_refused(asked, tokens, app.state.health))
        await stack.enter_async_context(reporting(app, broker, settings.service))
        yield


async def _assemble(
    app: FastAPI, stack: AsyncExitStack, database: Database, storage: Storage, relay: OutboxRelay
) -> None:
    """Put the rules together, and start the background tasks."""
    settings: Settings = app.state.settings
    transaction = transactions(database)
    uploads = Running("uploads", per_user=settings.running_uploads_per_user, at_most=settings.running_uploads)
    app.state.downloads = Running(
        "downloads", per_user=settings.running_downloads_per_user, at_most=settings.running_downloads
    )
    app.state.admission = Admission(transaction, uploads, app.state.pace, quota_bytes=settings.user_quota_bytes)
    app.state.disposal = Disposal(transaction, storage)
    stack.push_async_callback(app.state.disposal.close)
    app.state.previews = Previews(transaction, storage, Inspector(settings.workers))
    stack.push_async_callback(app.state.previews.close)
    scanners = _scanners(app, transaction, storage)

    def scan_soon() -> None:
        for scanner in scanners:
            scanner.wake()

    app.state.files = FileService(
        transaction,
        storage,
        app.state.disposal,
        app.state.admission,
        lambda: relay.flush(timeout_s=0),  # wakes the relay without waiting for it: the row is safe
        max_upload_bytes=settings.max_upload_bytes,
        upload_timeout=settings.upload_timeout,
        pending_expiry=settings.pending_expiry,
        scan_max_bytes=settings.scan_max_bytes if scanners else None,
        arrived=scan_soon,
    )
    stack.push_async_callback(app.state.files.close)
    orphans = Orphans(transaction, storage, settings.unsent_expiry)

    async def sweep() -> bool:
        return bool(await orphans.drop_unsent() + await app.state.disposal.sweep())

    sweeper = Repeated("sweep", sweep, settings.sweep_interval.total_seconds())
    examiner = Repeated("examine", app.state.previews.examine_next, settings.examine_interval.total_seconds())
    for background in (sweeper, examiner, *scanners):
        background.start()
        app.state.health.add(background.name, background.ping)
        stack.push_async_callback(background.stop)
    _open_direct(app, stack, transaction, storage)


def _open_direct(app: FastAPI, stack: AsyncExitStack, transaction: Transaction, storage: Storage) -> None:
    """Let clients carry their bytes to and from S3, where its public address is known."""
    settings: Settings = app.state.settings
    app.state.direct = app.state.download_urls = None
    if settings.s3_public_url is None:
        return
    presigner = Presigner(
        public_url=settings.s3_public_url,
        bucket=settings.s3_bucket,
        region=settings.s3_region,
        access_key=settings.s3_access_key.get_secret_value(),
        secret_key=settings.s3_secret_key.get_secret_value(),
    )
    app.state.direct = DirectUploads(
        transaction,
        storage,
        presigner,
        app.state.files,
        app.state.disposal,
        admission=app.state.admission,
        open_per_owner=settings.open_direct_uploads_per_user,
        expiry=settings.direct_upload_expiry,
        url_lifetime=settings.part_url_lifetime,
        completion_timeout=settings.upload_timeout,
    )
    stack.push_async_callback(app.state.direct.close)
    app.state.download_urls = DownloadUrls(presigner, app.state.files.announce_download, settings.download_url_lifetime)


def _storage(settings: Settings) -> AbstractAsyncContextManager[Storage]:
    return open_storage(
        endpoint_url=settings.s3_endpoint_url,
        bucket=settings.s3_bucket,
        region=settings.s3_region,
        access_key=settings.s3_access_key.get_secret_value(),
        secret_key=settings.s3_secret_key.get_secret_value(),
    )


def _scanners(app: FastAPI, transaction: Transaction, storage: Storage) -> list[Repeated]:
    settings: Settings = app.state.settings
    if settings.clamd_address is None:
        return []
    clamd = Clamd(settings.clamd_address, SCAN_TIMEOUT)
    quarantine = Quarantine(transaction, storage, app.state.disposal, clamd, FileMetrics(app.state.metrics))
    every = settings.scan_interval.total_seconds()
    return [Repeated(f"scan {number}", quarantine.scan_next, every) for number in range(settings.scans_at_once)]
