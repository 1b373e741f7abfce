"""The OpenAPI document of the gateway has an example for each JSON body, and each example fits its schema."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jsonschema_rs
import pytest

ROOT = Path(__file__).resolve().parents[1]
DOCUMENT: dict[str, Any] = json.loads((ROOT / "deploy/caddy/openapi.json").read_text("utf-8"))


class Body(NamedTuple):
    """A JSON body of a request or of a good answer."""

    name: str
    media: dict[str, Any]


def bodies() -> Iterator[Body]:
    for operation in (one for path in DOCUMENT["paths"].values() for one in path.values()):
        answers = {status: one for status, one in operation["responses"].items() if status.startswith("2")}
        for part, body in {"request": operation.get("requestBody", {}), **answers}.items():
            for kind, media in body.get("content", {}).items():
                if kind.startswith("application/json"):
                    yield Body(f"{operation['operationId']} {part}", media)


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
def test_a_json_body_has_an_example_that_fits(body: Body) -> None:
    jsonschema_rs.validate({"components": DOCUMENT["components"], **body.media["schema"]}, body.media["example"])
