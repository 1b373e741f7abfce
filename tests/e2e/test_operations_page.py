"""The operations page in a real Chromium: it updates by itself, follows a message, re-drives, and escapes everything.

The page and its door are message-store's; what it shows is made up here, so that it has all that can go wrong.
"""

import json
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import jwt
import pytest
import uvicorn
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from message_store.app import create_app
from message_store.operate.schemas import DeadLetter, DeadLetters, LogEntry, MessageWay, Snapshot, WayStep
from message_store.settings import Settings
from pydantic import SecretStr
from tlim_devstack.waiting import free_port
from tlim_protocol.operations import InstanceReport, LogLine, Sample
from tlim_runtime.auth import TokenVerifier
from tlim_runtime.background import beside

from tests.e2e.clients.browser import Page, chromium

pytestmark = pytest.mark.skipif(
    os.environ.get("TLIM_E2E_CHROMIUM") != "always",
    reason="TLIM_E2E_CHROMIUM is not always (it needs Debian's chromium)",
)

KEY = Ed25519PrivateKey.generate()
EVIL = "<img src=x onerror=\"document.title='taken over'\"><script>document.title='taken over'</script>"
PICTURES = Path(os.environ.get("TLIM_E2E_PICTURES", ""))


def token(scope: str = "admin") -> str:
    now = int(time.time())
    claims = {"sub": "root", "iss": "tlim", "aud": "tlim", "iat": now, "exp": now + 3_600, "scope": scope}
    return jwt.encode(claims, KEY, "EdDSA", headers={"kid": "test"})


async def keys() -> dict[str, Any]:
    return {"keys": [{**jwt.get_algorithm_by_name("EdDSA").to_jwk(KEY.public_key(), as_dict=True), "kid": "test"}]}


def now() -> int:
    return time.time_ns() // 1_000_000


class MadeUp:
    """A system with two stores and two bridges; somebody has written HTML wherever that is possible."""

    def __init__(self) -> None:
        self.looks = 0
        self.letters = [7, 5]
        self.silent = 0  # the look in which the first store does not answer
        self.sent_again: list[tuple[int, str]] = []
        self.started_at = now() - 3 * 3_600_000

    def _report(self, service: str, number: int, samples: list[Sample], trouble: str = "ok") -> InstanceReport:
        errors = [LogLine(at=now(), level="error", event="poison message", detail={"reason": EVIL, "msg_id": EVIL})]
        return InstanceReport(
            service=service, instance=f"{service}-{number}", version="0.1.0", started_at=self.started_at, at=now(),
            checks={"nats": "ok", "postgres": trouble}, warnings={}, samples=samples,
            errors=errors if trouble != "ok" else [],
        )  # fmt: skip

    async def snapshot(self) -> Snapshot:
        self.looks += 1
        texts = 1_000_000 + self.looks * 84.0
        store = [
            Sample(name="tlim_message_store_groups", labels={}, value=5),
            Sample(name="tlim_message_store_upkeep", labels={}, value=1),
            Sample(name="tlim_message_store_stored_total", labels={"msg_type": "MTT-000"}, value=texts),
            Sample(name="tlim_message_store_stored_total", labels={"msg_type": "MTC-001"}, value=texts / 2),
            Sample(name="tlim_consumer_lag_messages", labels={"consumer": "message-store-3"}, value=12),
            Sample(name="tlim_stream_messages", labels={"stream": "TLIM_DEAD"}, value=len(self.letters)),
            Sample(name="tlim_stream_bytes", labels={"stream": "TLIM_IN"}, value=3.7e9),
            Sample(name="tlim_stream_limit_bytes", labels={"stream": "TLIM_IN"}, value=4.2e9),
            Sample(name="tlim_database_size_bytes", labels={}, value=8.1e8),
            Sample(name="tlim_message_store_mailbox_rows", labels={}, value=10_234),
            *_histogram("tlim_message_stage_duration_seconds", {"stage": "store"}, texts, 0.01),
        ]
        bridge = [
            Sample(name="tlim_xmpp_connection_up", labels={}, value=1),
            Sample(name="tlim_bridge_people_present", labels={}, value=321),
            *(Sample(name="tlim_bridge_shards", labels={"shard": str(n)}, value=n % 2) for n in range(8)),
            Sample(
                name="tlim_certificate_expiry_timestamp_seconds",
                labels={"certificate": "xmpp"},
                value=now() / 1000 + 9e5,
            ),
            *_histogram("tlim_message_end_to_end_duration_seconds", {}, texts, 0.025),
        ]
        other = [Sample(name="tlim_message_store_groups", labels={}, value=3)]
        reports = [
            self._report("file-api", 1, []),
            *([self._report("message-store", 1, store)] if self.looks != self.silent else []),
            self._report("message-store", 2, other, EVIL),
            self._report("xmpp-bridge", 1, bridge),
        ]
        return Snapshot(at=now(), reports=reports)

    async def dead_letters(self, before: int | None, limit: int) -> DeadLetters:
        assert (before, limit) == (None, 20)
        items = [
            DeadLetter(
                seq=seq, at=now(), subject="tlim.in.MTT-000.3", cause="unstorable", reason=EVIL, size=9, msg_id=EVIL
            )
            for seq in self.letters
        ]
        return DeadLetters(items=items, next_before=None)

    async def redrive(self, seq: int, actor: str, _request_id: str) -> DeadLetter:
        self.sent_again.append((seq, actor))
        [letter] = [one for one in (await self.dead_letters(None, 20)).items if one.seq == seq]
        self.letters.remove(seq)
        return letter

    async def way(self, msg_id: str) -> MessageWay:
        row = LogEntry(
            seq=42, sender=EVIL, msg_type="MTT-000", conversation_id="u:alice:bob", stored_at=now(), recalled_at=None,
            received=1, first_received_at=now(), last_received_at=now(), read=0, first_read_at=None,
        )  # fmt: skip
        names = ("read", "accepted", "fetched", "committed", "published", "delivered")
        steps = [
            WayStep(at=self.started_at + 3 * place, step=name, service="message-store", instance="s-1", detail="")
            for place, name in enumerate(names)
        ]
        return MessageWay(msg_id=msg_id, rows=[row], steps=steps)


def _histogram(name: str, labels: dict[str, str], count: float, seconds: float) -> list[Sample]:
    edges = ("0.005", "0.01", "0.025", "0.05", "+Inf")
    return [
        Sample(name=f"{name}_bucket", labels={**labels, "le": edge}, value=count if float(edge) >= seconds else 0)
        for edge in edges
    ]


@pytest.fixture
async def system() -> MadeUp:
    return MadeUp()


@pytest.fixture
async def address(system: MadeUp) -> AsyncIterator[str]:
    unused: dict[str, Any] = {"port": 0, "nats_url": "", "nats_user": "", "nats_password": SecretStr("")}
    url = SecretStr("postgresql+asyncpg://nobody:nothing@127.0.0.1:1/nowhere")
    app = create_app(Settings(jwks_url="", database_url=url, **unused))
    app.state.tokens, app.state.watch = TokenVerifier(keys, "tlim", "tlim"), system
    app.state.tokens.refuse(())
    port = free_port()
    server = uvicorn.Server(uvicorn.Config(app, port=port, lifespan="off", log_config=None))
    async with beside(server.serve()) as serving:
        yield f"http://127.0.0.1:{port}/operations"
        server.should_exit = True
        await serving


@pytest.fixture
async def page(tmp_path: Path, address: str) -> AsyncIterator[Page]:
    async with chromium(tmp_path / "profile") as page:
        await page.ask("Page.navigate", url=address)
        yield page


async def log_in(page: Page, with_token: str) -> None:
    async def is_ready() -> None:
        assert await page.run("document.querySelector('#login button')?.disabled === false")

    await page.eventually(is_ready)
    await page.run(f"document.getElementById('token').value = '{with_token}'")
    await page.run("document.querySelector('#login button').click()")


async def test_the_page_shows_a_system_by_itself_and_nothing_in_it_can_run(page: Page, system: MadeUp) -> None:
    await log_in(page, token())

    async def has_a_rate() -> None:
        assert "MTT-000" in await page.text("#rate")
        assert "median" in await page.text("#stages")

    await page.eventually(has_a_rate)
    looked = system.looks

    async def looks_again() -> None:
        assert system.looks > looked + 1

    await page.eventually(looks_again)
    assert "1 of 4 instances are not well" in await page.text("#state")
    instances = await page.text("#instances")
    assert "5 of 8 groups, upkeep" in instances
    assert "3 of 8 groups" in instances
    assert "shards 1 3 5 7" in instances
    assert EVIL in instances
    assert EVIL in await page.text("#errors")
    assert "321" in await page.text("#connections")
    assert "TLIM_IN" in await page.text("#storage")

    async def has_letters() -> None:
        assert EVIL in await page.text("#dead")

    await page.eventually(has_letters)
    await page.run("document.getElementById('msg').value = 'a/b?c#d'")
    await page.run("document.querySelector('#follow button').click()")

    async def has_a_way() -> None:
        assert "delivered" in await page.text("#way")
        assert EVIL in await page.text("#way")

    await page.eventually(has_a_way)
    if str(PICTURES) != ".":
        await page.screenshot(PICTURES / "operations.png")
    assert await page.run("document.title") == "tlim · operations"
    assert await page.run("document.images.length") == 0
    assert page.troubles == []


async def test_an_instance_that_was_silent_once_has_not_done_the_work_of_its_life_at_once(
    page: Page, system: MadeUp
) -> None:
    system.silent = 3
    await log_in(page, token())

    async def looked_on() -> None:
        assert len(await page.run("rates")) > system.silent

    await page.eventually(looked_on)
    assert 0 < max(await page.run("rates")) < 84 * 1.5
    counted = {"name": "tlim_x_total", "labels": {"kind": "one"}, "value": 7}
    for started_at, grown in ((400, []), (600, [["one", 7]])):
        after = {"reports": [{"instance": "new", "started_at": started_at, "samples": [counted]}]}
        asked = f"[...growth({{at: 500, reports: []}}, {json.dumps(after)}, 'tlim_x_total', {{}}, 'kind')]"
        assert await page.run(asked) == grown


async def test_nobody_can_send_a_token_off_before_the_script_is_there(page: Page, address: str) -> None:
    await page.ask("Network.enable")
    await page.ask("Network.setBlockedURLs", urls=["*/page.js"])
    await page.ask("Page.navigate", url=address)

    async def has_a_form() -> None:
        assert "admin" in await page.text("#login")

    await page.eventually(has_a_form)
    is_disabled = await page.run("document.querySelector('#login button').disabled")
    assert is_disabled, "it would load the page anew, without the token"


async def test_a_dead_letter_is_sent_again_by_its_button(page: Page, system: MadeUp) -> None:
    await log_in(page, token())

    async def has_letters() -> None:
        assert await page.run("document.querySelectorAll('#dead button').length") == 2

    await page.eventually(has_letters)
    await page.run("document.querySelector('#dead button').click()")

    async def is_gone() -> None:
        assert await page.run("document.querySelectorAll('#dead button').length") == 1

    await page.eventually(is_gone)
    assert system.sent_again == [(7, "root")]


async def test_a_token_without_the_scope_sees_nothing_and_is_forgotten(page: Page) -> None:
    await log_in(page, token(scope=""))

    async def is_refused() -> None:
        assert "scope admin" in await page.text("#state")

    await page.eventually(is_refused)
    assert await page.run("document.getElementById('view').hidden && !sessionStorage.getItem('token')")
    if str(PICTURES) != ".":
        await page.screenshot(PICTURES / "login.png")
