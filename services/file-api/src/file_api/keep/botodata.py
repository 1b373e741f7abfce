"""Reads botocore's data files without the parts that an S3 client never uses: 4 MiB of memory instead of 12."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import botocore
from botocore.loaders import Loader
from pydantic import JsonValue

_SERVICE = "s3"
_OPENERS: dict[str, Callable[[Path, str], Any]] = {".json": Path.open, ".json.gz": gzip.open}


def lean_loader() -> Loader:
    """Return a loader for `Session.register_component("data_loader", …)` that knows S3 only, without its manual."""
    data = str(Path(botocore.__file__).parent / "data")
    files: Any = _LeanFiles()
    return Loader(extra_search_paths=[data], file_loader=files, include_default_search_paths=False)


class _LeanFiles:
    """The `file_loader` of a Loader, which gives it paths without their extension."""

    def exists(self, file_path: str) -> bool:
        return any(Path(file_path + extension).is_file() for extension in _OPENERS)

    def load_file(self, file_path: str) -> JsonValue:
        for extension, opener in _OPENERS.items():
            path = Path(file_path + extension)
            if path.is_file():
                with opener(path, "rb") as file:
                    content: JsonValue = json.load(file, object_pairs_hook=_without_ballast)
                    return content
        return None


def _without_ballast(pairs: list[tuple[str, JsonValue]]) -> dict[str, JsonValue]:
    return {key: _slim(key, value) for key, value in pairs}


def _slim(key: str, value: JsonValue) -> JsonValue:
    if key in {"documentation", "documentationUrl"} and isinstance(value, str):
        return ""
    if key == "services" and isinstance(value, dict):  # endpoints.json: several hundred services in 30 regions
        return {name: entry for name, entry in value.items() if name == _SERVICE}
    return value
