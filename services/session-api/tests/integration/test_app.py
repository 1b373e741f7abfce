"""The process around the rules: readiness names what it needs, browsers of configured origins may call."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from session_api.settings import Settings

ORIGIN = "https://chat.example.com"


@pytest.fixture
def overrides() -> dict[str, Any]:
    return {"cors_origins": [ORIGIN]}


async def test_ready_means_database_broker_token_keys_and_outbox(stranger: httpx.AsyncClient) -> None:
    answer = await stranger.get("/readyz")
    checks = dict.fromkeys(("postgres", "nats", "token keys", "outbox", "deactivated users"), "ok")
    assert answer.json() == {"ready": True, "checks": checks}


@pytest.mark.parametrize(
    ("path", "method"),
    [
        ("/plugin/tlim/addSession", "POST"),
        ("/v1/sessions", "POST"),
        ("/v1/sessions/x", "PATCH"),
        ("/v1/users/x", "PUT"),
    ],
)
async def test_a_preflight_of_a_configured_origin_is_answered(
    stranger: httpx.AsyncClient, path: str, method: str
) -> None:
    headers = {
        "Origin": ORIGIN,
        "Access-Control-Request-Method": method,
        "Access-Control-Request-Headers": "authorization,content-type,if-match",
    }
    answer = await stranger.options(path, headers=headers)
    assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (200, ORIGIN)
    refused = await stranger.options(path, headers=headers | {"Origin": "https://evil.example.com"})
    assert "access-control-allow-origin" not in refused.headers


async def test_a_limit_whose_largest_event_nats_does_not_take_ends_the_start(
    running: Callable[[Settings], AbstractAsyncContextManager[FastAPI]], settings: Settings
) -> None:
    too_many = settings.model_copy(update={"session_max_subscribers": 11_000})
    with pytest.raises(ValueError, match=r"TLIM_SESSION_MAX_SUBSCRIBERS.*max_payload"):
        async with running(too_many):
            pass
