"""deploy/k8s/README.md: what it tells an operator to type fits what the overlays apply."""

import re

from tests.deploy.rendering import DEPLOY, Resource, named

PAGE = (DEPLOY / "k8s/README.md").read_text(encoding="utf-8")


def test_kubectl_leads_to_every_port_of_the_doors(local: list[Resource]) -> None:
    lines = re.findall(r"port-forward service/(\w+) ([\d ]+) &$", PAGE, re.MULTILINE)
    led = {name: [int(port) for port in ports.split()] for name, ports in lines}
    services = named(local, "Service")
    assert led == {name: [port["port"] for port in services[name]["spec"]["ports"]] for name in ("gateway", "xmpp")}


def test_what_asks_for_a_token_is_the_same_on_every_page(local: list[Resource]) -> None:
    deployments = named(local, "Deployment")
    for page in (PAGE, (DEPLOY.parent / "docs/runbook.md").read_text(encoding="utf-8")):
        (asked,) = {(where, what) for where, what in re.findall(r"exec deploy/(\S+) -- python3 -m (\S+)", page)}
        assert asked[0] in deployments
        assert asked == ("xmpp-bridge", "xmpp_bridge.admin_token")
