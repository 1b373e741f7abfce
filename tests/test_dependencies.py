"""What FastAPI calls before an endpoint is a coroutine: it would send a plain function to a thread, and wait for it."""

import inspect
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from fastapi.dependencies.models import Dependant
from tlim_runtime.openapi import app_of

SERVICES = ("session_api", "file_api", "message_store", "xmpp_bridge")


def called(dependant: Dependant) -> Iterator[Callable[..., Any]]:
    if dependant.call is not None:
        yield dependant.call
    for one in dependant.dependencies:
        yield from called(one)


@pytest.mark.parametrize("service", SERVICES)
def test_no_request_waits_for_a_thread(service: str) -> None:
    included: list[Any] = [route for route in app_of(service).routes if hasattr(route, "effective_route_contexts")]
    endpoints = [endpoint for router in included for endpoint in router.effective_route_contexts()]
    calls = {call for endpoint in endpoints for call in called(endpoint.dependant)}
    assert len(calls) > len(endpoints) > 0
    assert {f"{call.__module__}.{call.__qualname__}" for call in calls if not _is_async(call)} == set()


def _is_async(call: Callable[..., Any]) -> bool:
    function = call if inspect.isroutine(call) else call.__call__  # type: ignore[operator]
    return inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function)
