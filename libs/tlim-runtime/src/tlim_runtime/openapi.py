"""openapi.json of a service: `python -m tlim_runtime.openapi <package> [--check]`, run in the repository's root.

Convention: `<package>.app.create_app(settings)` opens nothing, and `<package>.settings.Settings` is a ServiceSettings.
"""

import argparse
import importlib
import json
import sys
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from tlim_runtime.errors import Problem

_FRAMEWORK_ERRORS = ("HTTPValidationError", "ValidationError")


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
    return document


def _correct_operation(operation: dict[str, Any]) -> None:
    refused = operation.get("responses", {}).get("422", {})
    if "HTTPValidationError" in json.dumps(refused):
        operation["responses"]["422"] = {
            "description": "A field is missing, of the wrong type, or too long",
            "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}},
        }


def describe(package: str) -> str:
    """Return the OpenAPI document of a service as stable, indented JSON, without any environment."""
    settings = importlib.import_module(f"{package}.settings").Settings.placeholder()
    app: FastAPI = importlib.import_module(f"{package}.app").create_app(settings)
    return json.dumps(app.openapi(), indent=2, ensure_ascii=False, sort_keys=True) + "\n"


def main() -> None:
    """Write services/<name>/openapi.json, or with --check compare it and exit 1 when it differs."""
    parser = argparse.ArgumentParser(prog="python -m tlim_runtime.openapi", description=main.__doc__)
    parser.add_argument("package", help="for example session_api")
    parser.add_argument("--check", action="store_true")
    arguments = parser.parse_args()
    target = Path("services", arguments.package.replace("_", "-"), "openapi.json")
    document = describe(arguments.package)
    if not arguments.check:
        target.write_text(document, encoding="utf-8")
    elif not target.exists() or target.read_text(encoding="utf-8") != document:
        sys.stderr.write(f"{target} is not what {arguments.package} describes: run `make openapi`\n")
        raise SystemExit(1)


if __name__ == "__main__":
    main()
