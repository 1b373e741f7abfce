"""The OpenAPI document of the gateway: each body has an example that fits its schema, and names of operations stay."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jsonschema_rs
import pytest
from tlim_runtime.openapi_examples import is_bytes

ROOT = Path(__file__).resolve().parents[1]
DOCUMENT: dict[str, Any] = json.loads((ROOT / "deploy/caddy/openapi.json").read_text("utf-8"))
NAMES = ROOT / "tests/operation_ids.txt"
"""The names of all operations. A name that changes breaks clients: keep it, or change this list as well."""


class Body(NamedTuple):
    """A body of a request or of an answer."""

    name: str
    media: dict[str, Any]


def operations() -> Iterator[dict[str, Any]]:
    for path in DOCUMENT["paths"].values():
        yield from path.values()


def bodies() -> Iterator[Body]:
    for operation in operations():
        for part, body in {"request": operation.get("requestBody", {}), **operation["responses"]}.items():
            for kind, media in body.get("content", {}).items():
                if not is_bytes(media["schema"]):
                    yield Body(f"{operation['operationId']} {part} {kind}", media)


def shown(media: dict[str, Any]) -> list[Any]:
    """The examples of a body; one that stands elsewhere in the document is looked up."""
    named = [one["$ref"].rpartition("/")[2] for one in media.get("examples", {}).values()]
    own = [media["example"]] if "example" in media else []
    return [*own, *(DOCUMENT["components"]["examples"][name]["value"] for name in named)]


def test_an_operation_keeps_its_name_by_which_generated_clients_call_it() -> None:
    assert sorted(one["operationId"] for one in operations()) == NAMES.read_text("utf-8").splitlines()


def test_every_modern_operation_with_a_json_body_names_the_refusal_of_a_slow_one() -> None:
    reading_json = {
        (path, method): operation["responses"]
        for path, operations in DOCUMENT["paths"].items()
        for method, operation in operations.items()
        if path.startswith("/v1/") and "application/json" in operation.get("requestBody", {}).get("content", {})
    }
    assert len(reading_json) > 5
    assert [where for where, responses in reading_json.items() if "408" not in responses] == []


@pytest.mark.parametrize("body", list(bodies()), ids=lambda body: body.name)
def test_a_body_has_an_example_that_fits(body: Body) -> None:
    examples = shown(body.media)
    assert examples
    for one in examples:
        jsonschema_rs.validate({"components": DOCUMENT["components"], **body.media["schema"]}, one)


def test_an_example_of_a_refusal_has_the_status_of_its_answer() -> None:
    refusals = [(status, shown(answer["content"]["application/problem+json"])[0]) for one in operations()
                for status, answer in one["responses"].items()
                if "application/problem+json" in answer.get("content", {})]  # fmt: skip
    assert len(refusals) > 100
    assert [(status, one) for status, one in refusals if str(one["status"]) != status] == []
