"""Examples for an OpenAPI document: a whole body for each request and answer, made of examples of its fields."""

import json
import re
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

from pydantic import JsonValue
from tlim_protocol.errors import ErrorCode
from tlim_protocol.examples import EXAMPLES, IN

from tlim_runtime.errors import PROBLEM_JSON, problem

Schema = Mapping[str, Any]

_TYPES: Mapping[str, type | tuple[type, ...]] = {
    "string": str,
    "integer": int,
    "number": (int, float),
    "boolean": bool,
    "object": dict,
}
_PLAIN: Mapping[str, JsonValue] = {"boolean": False, "integer": 0, "object": {}}


_CODES: Mapping[int, ErrorCode] = {
    401: ErrorCode.NOT_ALLOWED,
    413: ErrorCode.FIELD_INVALID,
    422: ErrorCode.FIELD_INVALID,
}
"""The code of a refusal whose description names none."""


def add_examples(document: dict[str, Any]) -> None:
    """Give each body of requests and answers an example, except bytes; LookupError names a field that has none."""
    schemas = document["components"]["schemas"]
    for path in document.get("paths", {}).values():
        for operation in path.values():
            for media in _bodies(operation):
                if not {"example", "examples"} & media.keys():
                    media["example"] = example_of(media["schema"], schemas)
            for status, answer in operation["responses"].items():
                if PROBLEM_JSON in answer.get("content", {}):
                    _refer_to_problem(document, status, answer)


def _bodies(operation: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    answers = (one for status, one in operation["responses"].items() if status.startswith("2"))
    for body in (operation.get("requestBody", {}), *answers):
        yield from (media for media in body.get("content", {}).values() if not is_bytes(media["schema"]))


def is_bytes(schema: Schema) -> bool:
    """Return whether a body is bytes, or a form with bytes: no text shows them."""
    return any(one.get("format") == "binary" for one in (schema, *schema.get("properties", {}).values()))


def _refer_to_problem(document: dict[str, Any], status: str, answer: dict[str, Any]) -> None:
    """Let an answer name an example of its refusal, which stands once in the document: hundreds have the same."""
    named = re.search(r"`(error-\d+)`", answer["description"])
    code = ErrorCode(named[1]) if named else _CODES.get(int(status))
    name = f"{status}-{code.value}" if code else status
    shown = problem(int(status), str(EXAMPLES["detail"][0]), code=code)
    document["components"].setdefault("examples", {})[name] = {"value": json.loads(bytes(shown.body))}
    answer["content"][PROBLEM_JSON]["examples"] = {"refusal": {"$ref": f"#/components/examples/{name}"}}


def example_of(schema: Schema, schemas: Mapping[str, Schema], name: str = "") -> JsonValue:
    """Return a value of a schema: its own example, or that of its name, or one made of the examples of its parts."""
    while "$ref" in schema:
        schema = schemas[schema["$ref"].rpartition("/")[2]]
    const = [schema["const"]] if "const" in schema else []
    of_its_own: list[JsonValue] = [*const, *schema.get("examples", ()), *schema.get("enum", ())]
    if of_its_own:
        return of_its_own[0]
    if "anyOf" in schema:
        best: JsonValue = _best(schema["anyOf"], schemas, name)
        return best
    if "properties" in schema:
        fields = {f"{schema.get('title')}.{field}": (field, one) for field, one in schema["properties"].items()}
        return {
            field: IN[place] if place in IN else example_of(one, schemas, field)
            for place, (field, one) in fields.items()
        }
    if schema.get("type") == "array" and ("default" not in schema or name in EXAMPLES):
        return [example_of(schema["items"], schemas, name)]
    return _named(schema, name)


def _best(choices: list[Schema], schemas: Mapping[str, Schema], name: str) -> JsonValue:
    """Return an example of the first choice; null where that may be, for a field without an example."""
    first = choices[0]
    may_be_null = any(one.get("type") == "null" for one in choices)
    is_left_out = may_be_null and "$ref" not in first and name not in EXAMPLES
    return None if is_left_out else example_of(first, schemas, name)


def _named(schema: Schema, name: str) -> JsonValue:
    kinds = schema.get("type", "object")
    kind: str = kinds if isinstance(kinds, str) else kinds[0]
    is_date = schema.get("format") == "date-time"
    fitting = (one for one in EXAMPLES.get(name, ()) if isinstance(one, _TYPES[kind]) and _is_date(one) is is_date)
    found: JsonValue = next(fitting, schema.get("default", _PLAIN.get(kind)))
    if found is None:
        raise LookupError(f"no example for {name} ({schema}): add it to tlim_protocol/examples.py")
    return found


def _is_date(value: JsonValue) -> bool:
    if not isinstance(value, str) or "T" not in value:
        return False
    try:
        datetime.fromisoformat(value)
    except ValueError:
        return False
    return True
