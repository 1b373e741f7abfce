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


@pytest.mark.parametrize("body", list(bodies()), ids=lambda body: body.name)
def test_a_json_body_has_an_example_that_fits(body: Body) -> None:
    jsonschema_rs.validate({"components": DOCUMENT["components"], **body.media["schema"]}, body.media["example"])
