"""openapi.json of a service: `python -m tlim_runtime.openapi <package> [--check]`, run in the repository's root.

`python -m tlim_runtime.openapi gateway` puts those of all services into one document, which the gateway serves.

Convention: `<package>.app.create_app(settings)` opens nothing, and `<package>.settings.Settings` is a ServiceSettings.
"""

import argparse
import importlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute

from tlim_runtime.errors import Problem
from tlim_runtime.openapi_examples import add_examples

GATEWAY = "gateway"
_FRAMEWORK_ERRORS = ("HTTPValidationError", "ValidationError")


def operation_id(route: APIRoute) -> str:
    """Return the name of an operation, by which generated clients call it. It stays when the address changes.

    The specification's own addresses take several methods, so there the method belongs to the name, and in HEAD.
    """
    method = min(route.methods or {"GET"})
    is_one_of_several = method == "HEAD" or not route.path.startswith(("/v1/", "/.well-known/"))
    return f"{route.name}_{method.lower()}" if is_one_of_several else route.name


class DescribedApp(FastAPI):
    """An application whose OpenAPI document tells the truth: errors are problem documents."""

    def openapi(self) -> dict[str, Any]:
        """Return the document, made once."""
        if self.openapi_schema is None:
            self.openapi_schema = _corrected(get_openapi(title=self.title, version=self.version, routes=self.routes))
        return self.openapi_schema


def _corrected(document: dict[str, Any]) -> dict[str, Any]:
    schemas = document.setdefault("components", {}).setdefault("schemas", {})
    for name in _FRAMEWORK_ERRORS:
        schemas.pop(name, None)
    schema = Problem.model_json_schema(ref_template="#/components/schemas/{model}")
    schemas.update(schema.pop("$defs", {}))
    schemas["Problem"] = schema
    for path in document.get("paths", {}).values():
        for operation in path.values():
            if isinstance(operation, dict):
                _correct_operation(operation)
    add_examples(document)
    return document


def _correct_operation(operation: dict[str, Any]) -> None:
    refused = operation.get("responses", {}).get("422", {})
    if "HTTPValidationError" in json.dumps(refused):
        operation["responses"]["422"] = {
            "description": "A field is missing, of the wrong type, or too long",
            "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}},
        }


def app_of(package: str) -> FastAPI:
    """Return the application of a service, made without any environment."""
    settings = importlib.import_module(f"{package}.settings").Settings.placeholder()
    app: FastAPI = importlib.import_module(f"{package}.app").create_app(settings)
    return app


def describe(package: str) -> str:
    """Return the OpenAPI document of a service as stable, indented JSON, without any environment."""
    return json.dumps(app_of(package).openapi(), indent=2, ensure_ascii=False, sort_keys=True) + "\n"


def merged(documents: Sequence[dict[str, Any]]) -> str:
    """Return one document with all operations and schemas; ValueError if two have the same name and differ.

    It has lines, which git compares, but no indentation: kubectl apply takes a ConfigMap of up to 256 KiB.
    """
    whole: dict[str, Any] = {
        "openapi": documents[0]["openapi"],
        "info": {"title": "tlim", "version": documents[0]["info"]["version"]},
        "paths": {},
        "components": {},
    }
    operations: set[str] = set()
    for document in documents:
        _add(whole["paths"], document["paths"])
        for kind, named in document["components"].items():
            _add(whole["components"].setdefault(kind, {}), named)
        ids = [
            one["operationId"] for path in document["paths"].values() for one in path.values() if "operationId" in one
        ]
        if len({*operations, *ids}) < len(operations) + len(ids):
            raise ValueError(f"two operations have the same id, among {sorted(ids)}")
        operations.update(ids)
    return json.dumps(whole, indent=0, ensure_ascii=False, sort_keys=True) + "\n"


def _add(whole: dict[str, Any], part: dict[str, Any]) -> None:
    for name, value in part.items():
        if whole.setdefault(name, value) != value:
            raise ValueError(f"{name} is not the same in two services")


def main() -> None:
    """Write services/<name>/openapi.json, or with --check compare it and exit 1 when it differs."""
    parser = argparse.ArgumentParser(prog="python -m tlim_runtime.openapi", description=main.__doc__)
    parser.add_argument("package", help="for example session_api, or gateway: all of them")
    parser.add_argument("--check", action="store_true")
    arguments = parser.parse_args()
    if arguments.package == GATEWAY:
        target = Path("deploy", "caddy", "openapi.json")
        document = merged(
            [json.loads(file.read_text("utf-8")) for file in sorted(Path("services").glob("*/openapi.json"))]
        )
    else:
        target = Path("services", arguments.package.replace("_", "-"), "openapi.json")
        document = describe(arguments.package)
    if not arguments.check:
        target.write_text(document, encoding="utf-8")
    elif not target.exists() or target.read_text(encoding="utf-8") != document:
        sys.stderr.write(f"{target} is not what {arguments.package} describes: run `make openapi`\n")
        raise SystemExit(1)


if __name__ == "__main__":
    main()
