"""The ways that settings imply, against those that the policies open."""

import re
from collections.abc import Iterator
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from tests.deploy.rendering import Resource, addresses, containers, named, pods

NAME = "app.kubernetes.io/name"
PORTS = {"http": 80, "https": 443, "nats": 4222}
NOT_CALLED = {("file-api", "TLIM_S3_PUBLIC_URL")}  # it signs these addresses for people
XMPP_PORTS = {"xmpp-bridge": (5222, 5347), "admin": (5222,)}
"""At which ports TLIM_XMPP_HOST is called."""


class Call(NamedTuple):
    """A workload calls a host, because a variable says so."""

    caller: str
    variable: str
    host: str
    port: int


def calls(resources: list[Resource]) -> Iterator[Call]:
    """Yield what the variables of all containers name, except what is on the pod itself."""
    where = addresses(resources)
    for name, pod in pods(resources):
        for container in containers(pod):
            told: dict[str, str] = {}
            for one in container.get("env", []):
                key = one.get("valueFrom", {}).get("configMapKeyRef", {}).get("key")
                text = where[key] if key else one["value"]
                told[one["name"]] = re.sub(r"\$\((\w+)\)", lambda found: told[found[1]], text)  # noqa: B023 - used here
            for variable, text in told.items():
                yield from _of_variable(name, variable, text)


def _of_variable(caller: str, variable: str, text: str) -> Iterator[Call]:
    if variable == "TLIM_XMPP_HOST":
        yield from (Call(caller, variable, text, port) for port in XMPP_PORTS[caller])
        return
    url = text if "://" in text else f"tcp://{text}" if re.fullmatch(r"[\w.-]+:\d+", text) else ""
    parts = urlsplit(url)
    if (caller, variable) in NOT_CALLED or parts.hostname in {None, "127.0.0.1", "localhost"}:
        return
    yield Call(caller, variable, str(parts.hostname), parts.port or PORTS[parts.scheme])


def assert_the_policies_let_through(resources: list[Resource]) -> None:
    """Each call leaves its pod and enters the other one; one that leads outside needs a way to any address."""
    services, workloads = named(resources, "Service"), dict(pods(resources))
    policies = [one["spec"] for one in named(resources, "NetworkPolicy").values()]
    seen = set(calls(resources))
    assert {call.caller for call in seen} >= {"gateway", "session-api", "file-api", "message-store", "xmpp-bridge"}
    for call in seen:
        if call.host not in services:
            assert _is_open(policies, "egress", call.caller, None, call.port), call
            continue
        spec = services[call.host]["spec"]
        target = spec["selector"][NAME]
        (door,) = (one["targetPort"] for one in spec["ports"] if one["port"] == call.port)
        (port,) = {one["containerPort"] for container in containers(workloads[target])
                   for one in container.get("ports", []) if one["name"] == door}  # fmt: skip
        assert _is_open(policies, "egress", call.caller, target, port), call
        assert _is_open(policies, "ingress", target, call.caller, port), call


def _is_open(policies: list[dict[str, Any]], side: str, me: str, other: str | None, port: int) -> bool:
    return any(
        _leads_to(rule.get("to" if side == "egress" else "from"), other) and {"port": port} in rule["ports"]
        for policy in policies
        if _selects(policy["podSelector"], me)
        for rule in policy.get(side, [])
    )


def _leads_to(peers: list[dict[str, Any]] | None, other: str | None) -> bool:
    if peers is None:
        return True
    if other is None:
        return {"ipBlock": {"cidr": "0.0.0.0/0"}} in peers
    return any(peer.keys() == {"podSelector"} and _selects(peer["podSelector"], other) for peer in peers)


def _selects(selector: dict[str, Any], name: str) -> bool:
    labels = selector.get("matchLabels", {NAME: name})
    within = [one["values"] for one in selector.get("matchExpressions", []) if one["key"] == NAME]
    return labels.get(NAME) == name and all(name in values for values in within)
