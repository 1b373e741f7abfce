"""Each service keeps to its OpenAPI document for any request: no crash, no undocumented answer or shape."""

import asyncio
import json
from collections.abc import Callable
from http import HTTPStatus
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from PIL import Image
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from tlim_client.http import HttpClient
from tlim_devstack.plain_http import NO_TLS
from tlim_devstack.stack import Stack
from tlim_protocol.registry import MsgType

SERVICES = Path(__file__).parents[2] / "services"
EXAMPLES = 12
SLOW_EXAMPLES = 3
"""For a login, which takes its time on purpose when it fails."""
PATIENCE = 60
"""Seconds for an answer, also on a busy machine."""
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
    config = schemathesis.Config.from_dict({"generation": generation, "request-timeout": PATIENCE})
    return schemathesis.openapi.from_path(SERVICES / service / "openapi.json", config=config)


class Reader(NamedTuple):
    """A person who is both a user and an administrator."""

    password: str
    token: str

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"}


@pytest.fixture(scope="session")
def reader(stack: Stack) -> Reader:
    password = stack.register_user("reader", "Reader")
    stack.enter_in_directory({"somebody": "Somebody"})
    return Reader(password, stack.admin_token("reader"))


@pytest.fixture
def known(stack: Stack, reader: Reader, tmp_path: Path) -> dict[str, str]:
    """Values of parameters for which the reader finds something."""
    return _make_known(stack, reader, tmp_path / "file.png")


@pytest.fixture(scope="module")
def kept(stack: Stack, reader: Reader, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The same for tests that only read: made once. `known` ends its upload, so no test uses both."""
    return _make_known(stack, reader, tmp_path_factory.mktemp("kept") / "file.png")


def _make_known(stack: Stack, reader: Reader, picture: Path) -> dict[str, str]:
    Image.new("RGB", (8, 8)).save(picture)
    return asyncio.run(_make_with(stack, reader, picture, picture.read_bytes()))


async def _make_with(stack: Stack, reader: Reader, picture: Path, content: bytes) -> dict[str, str]:
    async with (
        HttpClient(stack.addresses.gateway, token=reader.token) as client,
        httpx.AsyncClient(verify=NO_TLS, timeout=PATIENCE) as s3,
    ):
        await client.put_user("system", "System")
        session_id = (await client.add_session(["reader", "system"]))["session_id"]
        said = {"from": "system", "session_id": session_id, "body": [{"text": "hello"}]}
        said = await client.call("POST", "/v1/messages", json={**said, "msg_type": MsgType.GROUP_TEXT})
        file_id = await client.upload(picture)
        for left in (await client.call("GET", "/v1/uploads"))["items"]:  # by earlier tests; only a few may be open
            await client.call("DELETE", f"/v1/uploads/{left['upload_id']}")
        upload = await client.begin_upload(picture)
        put = upload["single"]
        await s3.request(put["method"], put["url"], content=content, headers=put["headers"])
    ids = {"session_id": session_id, "conversation": session_id, "file_id": file_id}
    ids["upload_id"] = upload["upload_id"]
    return {**ids, "fileId": file_id, "msg_id": said["msg_id"], "user_id": "somebody"}


def _names(case: schemathesis.Case[Any], place: str) -> set[str]:
    return {one["name"] for one in case.operation.definition.raw.get("parameters", ()) if one["in"] == place}


@pytest.fixture
def check(stack: Stack, reader: Reader, known: dict[str, str]) -> Callable[[str, schemathesis.Case[Any]], None]:
    """Sends what was made up to a service: without a token, with one, about something that exists, and only about that.

    The last one is for those whose made-up sender, cursor or limit would be refused before anything is found.
    """

    def check(service: str, case: schemathesis.Case[Any]) -> None:
        url = f"http://127.0.0.1:{stack.services.port(service)}"
        headers = reader.headers
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


def _operations() -> dict[str, tuple[str, schemathesis.schemas.APIOperation[Any, Any, Any, Any]]]:
    """Return all operations: `GET /v1/sync` → its service, and its entry in the OpenAPI document."""
    found = {}
    for service in sorted(path.parent.name for path in SERVICES.glob("*/openapi.json")):
        for result in _document(service).get_all_operations():
            assert isinstance(result, schemathesis.core.result.Ok)
            operation = result.ok()
            found[f"{operation.method.upper()} {operation.path}"] = (service, operation)
    return found


OPERATIONS = _operations()


def _rightly(known: dict[str, str], password: str) -> dict[str, dict[str, Any]]:
    """Return what operations want beside the ids of what there is."""
    listed = json.dumps([{"user_id": "somebody"}])
    made, changed = {"session_type": "1", "subscribers": listed}, {"session_name": "New"}
    named, user = {"session_id": known["session_id"]}, {"user_id": "somebody", "name": "Somebody"}
    said = {"from": "system", "to": "reader", "msg_type": MsgType.TEXT.value, "body": [{"text": "hello"}]}
    a_file = {"body": {"file": b"content"}, "media_type": "multipart/form-data"}
    return {
        "GET /plugin/tlim/addSession": {"query": made},
        "GET /plugin/tlim/modifySession": {"query": changed},
        "POST /plugin/tlim/addSession": {"body": made},
        "POST /plugin/tlim/modifySession": {"body": {**named, **changed}},
        "POST /plugin/tlim/deleteSession": {"body": named},
        "POST /v1/sessions": {"body": {"session_type": 1, "subscribers": ["somebody"]}},
        "PATCH /v1/sessions/{session_id}": {"body": changed},
        "POST /v1/users": {"body": {"users": [user]}},
        "POST /v1/users/import": {"body": [user]},
        "PUT /v1/users/{user_id}": {"body": {"name": "Somebody"}},
        "POST /v1/messages": {"body": said},
        "POST /v1/tokens": {"body": {"username": "reader", "password": password}},
        "GET /v1/search": {"query": {"q": "hello"}},
        "POST /v1/files": a_file,
        "POST /{project_name}/upload/mobileFileUpload": a_file,
        "POST /v1/uploads": {"body": {"name": "a.txt", "size": 7}},
    }


NEEDS_A_DEAD_LETTER = "POST /v1/operations/dead-letters/{seq}/redrive"
"""Nothing here makes one. message-store's integration tests do, and send it its way again."""


@pytest.mark.parametrize("name", [name for name in OPERATIONS if name != NEEDS_A_DEAD_LETTER])
def test_each_operation_succeeds_when_it_is_asked_rightly(
    stack: Stack, reader: Reader, known: dict[str, str], name: str
) -> None:
    service, operation = OPERATIONS[name]
    asked = {"media_type": "application/json"} | _rightly(known, reader.password).get(name, {})
    paths = {parameter.name: known.get(parameter.name, "app") for parameter in operation.path_parameters}
    ids = {parameter.name: known[parameter.name] for parameter in operation.query if parameter.name in known}
    ids.pop("user_id", None)  # whom callers without a token say that they are
    case = operation.Case(path_parameters=paths, **asked | {"query": ids | asked.get("query", {})})

    url = f"http://127.0.0.1:{stack.services.port(service)}"
    answer = case.call_and_validate(base_url=url, headers=reader.headers, checks=CONFORM)

    assert answer.status_code in {HTTPStatus.OK, HTTPStatus.CREATED, HTTPStatus.NO_CONTENT}
    if operation.path.startswith("/plugin/"):
        assert answer.json()["result"] == "ok"


@pytest.mark.parametrize("name", [name for name in OPERATIONS if name.startswith("GET ") and "/plugin/" not in name])
def test_head_answers_as_get_does_and_sends_no_body(
    stack: Stack, reader: Reader, kept: dict[str, str], name: str
) -> None:
    service, operation = OPERATIONS[name]
    paths = {parameter.name: kept.get(parameter.name, "app") for parameter in operation.path_parameters}
    query = {parameter.name: kept[parameter.name] for parameter in operation.query if parameter.name in kept}
    query |= _rightly(kept, reader.password).get(name, {}).get("query", {})
    url = f"http://127.0.0.1:{stack.services.port(service)}{operation.path.format(**paths)}"

    with httpx.Client(params=query, headers=reader.headers, trust_env=False, verify=NO_TLS, timeout=PATIENCE) as client:
        get, head = client.get(url), client.head(url)

    assert (head.status_code, head.headers["content-type"]) == (get.status_code, get.headers["content-type"])
    assert get.content
    assert not head.content


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
