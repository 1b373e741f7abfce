"""Whom an operator lets in: web pages of other origins, identity providers. Nobody, until they are named."""

import json

import pytest

from tests.deploy.compose_file import CONTAINERS
from tests.deploy.rendering import Resource, addresses, containers, pods

KEYS = {"TLIM_CORS_ORIGINS": "cors-origins", "TLIM_EXTERNAL_ISSUERS": "external-issuers"}


@pytest.mark.parametrize("variable", KEYS)
def test_they_are_named_once_for_all_that_ask(each: list[Resource], variable: str) -> None:
    told = {
        container["name"]: one.get("valueFrom")
        for _, pod in pods(each)
        for container in containers(pod)
        for one in container.get("env", [])
        if one["name"] == variable
    }
    in_compose = {name for name, container in CONTAINERS.items() if variable in container.get("environment", {})}
    here = {name for name, _ in pods(each)}
    named = {"configMapKeyRef": {"name": "addresses", "key": KEYS[variable]}}
    assert told == dict.fromkeys(in_compose & here, named)
    assert json.loads(addresses(each)[KEYS[variable]]) == []
