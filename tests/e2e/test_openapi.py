"""Each service keeps to its OpenAPI document, whatever it is asked: no crash, no undocumented answer or shape."""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from tlim_client.http import HttpClient
from tlim_devstack.stack import Stack
from tlim_protocol.registry import MsgType

SERVICES = Path(__file__).parents[2] / "services"
EXAMPLES = 12
SLOW_EXAMPLES = 3
"""For a login, which takes its time on purpose when it fails."""
CONFORM = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]


WAIVED = HealthCheck.function_scoped_fixture  # what is found under an id may be gone after one example, as in life


def _document(service: str, examples: int = EXAMPLES) -> schemathesis.BaseSchema:
    generation = {"deterministic": True, "max-examples": examples}
    config = schemathesis.Config.from_dict({"generation": generation})
    return schemathesis.openapi.from_path(SERVICES / service / "openapi.json", config=config)


@pytest.fixture(scope="session")
def reader_token(stack: Stack) -> str:
    """A token of somebody who is a user and an administrator."""
    stack.register_user("reader", "Reader")
    stack.enter_in_directory({"somebody": "Somebody"})
    return stack.admin_token("reader")


@pytest.fixture
def known(stack: Stack, reader_token: str, tmp_path: Path) -> dict[str, str]:
    """Values of parameters under which the reader finds something."""

    async def make() -> dict[str, str]:
        async with HttpClient(stack.addresses.gateway, token=reader_token) as client:
            await client.put_user("system", "System")
            session_id = (await client.add_session(["reader", "system"]))["session_id"]
            said = {"from": "system", "session_id": session_id, "body": [{"text": "hello"}]}
            said = await client.call("POST", "/v1/messages", json={**said, "msg_type": MsgType.GROUP_TEXT})
            (tmp_path / "file").write_text("content")
            file_id = await client.upload(tmp_path / "file")
            upload_id = (await client.begin_upload(tmp_path / "file"))["upload_id"]
        ids = {"session_id": session_id, "conversation": session_id, "file_id": file_id, "upload_id": upload_id}
        return {**ids, "fileId": file_id, "msg_id": said["msg_id"], "user_id": "somebody"}

    return asyncio.run(make())


def _names(case: schemathesis.Case[Any], place: str) -> set[str]:
    return {one["name"] for one in case.operation.definition.raw.get("parameters", ()) if one["in"] == place}


@pytest.fixture
def check(stack: Stack, reader_token: str, known: dict[str, str]) -> Callable[[str, schemathesis.Case[Any]], None]:
    """Sends what was made up to a service: without a token, with one, about something that exists, and only about that.

    The last one is for those whose made-up sender, cursor or limit would be refused before anything is found.
    """

    def check(service: str, case: schemathesis.Case[Any]) -> None:
        url = f"http://127.0.0.1:{stack.services.port(service)}"
        headers = {"Authorization": f"Bearer {reader_token}"}
        open_to_all = "security" not in case.operation.definition.raw
        assert open_to_all or case.call_and_validate(base_url=url, checks=CONFORM).status_code >= 400
        case.call_and_validate(base_url=url, headers=headers, checks=CONFORM)
        asked = {name: known[name] for name in _names(case, "query") & known.keys() - {"user_id"}}
        if asked or known.keys() & case.path_parameters.keys():
            case.path_parameters = {name: known.get(name, value) for name, value in case.path_parameters.items()}
            for made_up in (case.query, {}) if case.query else ({},):
                case.query = {**made_up, **asked}
                case.call_and_validate(base_url=url, headers=headers, checks=CONFORM)

    return check


Check = Callable[[str, schemathesis.Case[Any]], None]
session_api, file_api, message_store = (
    _document("session-api"),
    _document("file-api"),
    _document("message-store"),
)
bridge = _document("xmpp-bridge").exclude(path="/v1/tokens")
tokens = _document("xmpp-bridge", SLOW_EXAMPLES).include(path="/v1/tokens")


def test_everything_wants_a_token_but_the_keys_and_the_login() -> None:
    documents = [json.loads(path.read_text(encoding="utf-8")) for path in SERVICES.glob("*/openapi.json")]
    operations = {
        f"{method.upper()} {path}": operation
        for document in documents
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    }
    open_to_all = {name for name, operation in operations.items() if not operation.get("security")}
    assert open_to_all == {"GET /.well-known/jwks.json", "POST /v1/tokens"}


@session_api.parametrize()
@settings(suppress_health_check=[WAIVED])
def test_session_api_keeps_to_its_document(case: schemathesis.Case[Any], check: Check) -> None:
    check("session-api", case)


@file_api.parametrize()
@settings(suppress_health_check=[WAIVED])
def test_file_api_keeps_to_its_document(case: schemathesis.Case[Any], check: Check) -> None:
    check("file-api", case)


@message_store.parametrize()
@settings(suppress_health_check=[WAIVED])
def test_message_store_keeps_to_its_document(case: schemathesis.Case[Any], check: Check) -> None:
    check("message-store", case)


@bridge.parametrize()
@settings(suppress_health_check=[WAIVED])
def test_the_bridge_keeps_to_its_document(case: schemathesis.Case[Any], check: Check) -> None:
    check("xmpp-bridge", case)


@tokens.parametrize()
@settings(suppress_health_check=[WAIVED])
def test_token_issue_keeps_to_its_document(case: schemathesis.Case[Any], check: Check) -> None:
    check("xmpp-bridge", case)
