"""The system in the cluster that KUBECONFIG names, behind the same interface as in containers (containers.py)."""

import ipaddress
import json
import secrets
import time
from base64 import b64encode
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

import httpx
from tlim_devstack.failures import StackError
from tlim_devstack.ports import Ports
from tlim_devstack.services import SERVICES
from tlim_devstack.waiting import accepts_connections, wait_until

from tests.e2e.clients.containers import DoorsStack, printed_by
from tests.e2e.clients.manifests import DOORS, NAMESPACE, OVERLAY, Manifests
from tests.e2e.clients.production import PRODUCTION, Production

READY_S = 300
"""A pod that could not start is tried again after up to some minutes."""

ASKED = {
    "gateway": "/healthz",
    "session-api": "/v1/sessions",
    "file-api": "/v1/files/nothing",
    "message-store": "/v1/conversations",
    "xmpp-bridge": "/.well-known/jwks.json",
}
"""What the gateway answers itself, or has a service answer; with a refusal, as nobody asks."""

JOB = "operator"

LOGINS = 6
"""So many logins in a row are answered, each by one of two bridges: one may not have noticed that ejabberd is back."""

SHARED = ("nats", "postgres")
"""No service is ready without them. Three servers of NATS need so long for a start that the cluster notices."""

PORTS = {"http": 80, "https": 443}


class Cluster:
    """The workloads of the system by their names (containers.Parts): each is a Deployment or a StatefulSet.

    `elsewhere` are servers outside of the system's namespace, with theirs.
    """

    def __init__(self, elsewhere: Mapping[str, str]) -> None:
        self._elsewhere = elsewhere
        self._replicas: dict[str, int] = {}

    @property
    def namespaces(self) -> list[str]:
        return sorted({NAMESPACE, *self._elsewhere.values()})

    def run(self, *arguments: str, namespace: str = NAMESPACE, stdin: str | None = None) -> str:
        """Run `kubectl …` and return what it printed; StackError with its last line if it fails."""
        return printed_by("kubectl", *arguments, options=("--namespace", namespace), stdin=stdin)

    def run_for(self, name: str, *arguments: str) -> str:
        """Run `kubectl …` in the namespace of a workload."""
        return self.run(*arguments, namespace=self._elsewhere.get(name, NAMESPACE))

    def workloads(self) -> dict[str, dict[str, Any]]:
        """Return each Deployment and StatefulSet by its name."""
        lists = [self.run("get", "deployments,statefulsets", "--output=json", namespace=one) for one in self.namespaces]
        return {one["metadata"]["name"]: one for text in lists for one in json.loads(text)["items"]}

    def states(self) -> dict[str, str]:
        """Return the state of each workload, in supervisord's words."""
        return {
            name: "RUNNING" if workload["spec"]["replicas"] else "STOPPED"
            for name, workload in self.workloads().items()
        }

    def pid(self, name: str) -> int:
        """Return a number that changes when a pod is replaced, 0 if none is ready."""
        ready = sorted(pod["metadata"]["uid"] for pod in self.pods(name) if _is_ready(pod))
        return UUID(ready[0]).int if ready else 0

    def is_healthy(self, name: str) -> bool:
        """Whether all pods are of the newest kind, and ready, and no other is left."""
        workload = self.workloads()[name]
        wanted, pods = workload["spec"]["replicas"], self.pods(name)
        status = workload["status"]
        return (
            status.get("observedGeneration") == workload["metadata"]["generation"]
            and wanted > 0
            and status.get("updatedReplicas", 0) == wanted
            and len(pods) == wanted
            and all(_is_ready(pod) for pod in pods)
        )

    def stop(self, names: Iterable[str]) -> None:
        """Scale to no pod at all, and wait until the last has ended."""
        names = list(names)
        workloads = self.workloads()
        for name in names:
            if replicas := workloads[name]["spec"]["replicas"]:
                self._replicas[name] = replicas
            self._scale(workloads[name], 0)
        for name in names:
            wait_until(lambda name=name: not self.pods(name), f"the end of {name}", READY_S)  # type: ignore[misc]

    def start(self, *names: str) -> None:
        workloads = self.workloads()
        for name in names:
            self._scale(workloads[name], self._replicas[name])

    def kill(self, name: str) -> None:
        """Kill all pods of a workload at once, without a notice; the cluster makes others."""
        at_once = ("--force", "--grace-period=0", "--wait")
        self.run_for(name, "delete", "pods", f"--selector=app.kubernetes.io/name={name}", *at_once)

    def roll(self, name: str) -> None:
        """Replace the pods of a workload one after another, as an update does, and wait for the end."""
        resource = _resource(self.workloads()[name])
        self.run_for(name, "rollout", "restart", resource)
        self.run_for(name, "rollout", "status", resource, f"--timeout={READY_S}s")

    def clients(self, pod: str) -> int:
        """Return how many clients are connected to a pod of ejabberd, by the kernel's table: port 5222, established."""
        lines = self.run("exec", pod, "--", "cat", "/proc/net/tcp", "/proc/net/tcp6").splitlines()
        return sum(":1466 " in f"{line.split()[1]} " and line.split()[3] == "01" for line in lines)

    def delete(self, pod: str, *, kill: bool = False) -> None:
        """Have one pod end, or end it at once."""
        self.run("delete", "pod", pod, "--wait", *(["--force", "--grace-period=0"] if kill else []))

    def evict(self, names: Iterable[str]) -> None:
        """Have all pods of these workloads leave, as `kubectl drain` does: a budget may refuse some for a while."""
        left = [pod["metadata"]["name"] for name in names for pod in self.pods(name)]
        wait_until(lambda: not [pod for pod in left if not self._is_evicted(pod)], "the drain", READY_S)

    def _is_evicted(self, pod: str) -> bool:
        """Whether a pod is leaving or has left; it is asked to, if it may."""
        eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod, "namespace": NAMESPACE}}
        address = f"/api/v1/namespaces/{NAMESPACE}/pods/{pod}/eviction"
        found = json.loads(self.run("get", "pods", pod, "--ignore-not-found", "--output=json") or "{}")
        if not found or "deletionTimestamp" in found["metadata"]:
            return True
        try:
            self.run("create", "--raw", address, "--filename=-", stdin=json.dumps(eviction))
        except StackError as refusal:
            if "disruption budget" not in str(refusal):
                raise
            return False
        return True

    def logs(self, name: str) -> str:
        return self.run_for(name, "logs", f"--selector=app.kubernetes.io/name={name}", "--tail=-1")

    def execute(self, name: str, *command: str) -> str:
        return self.run_for(name, "exec", _resource(self.workloads()[name]), "--", *command)

    def pods(self, name: str) -> list[dict[str, Any]]:
        """Return the pods of a workload, also those that are ending."""
        text = self.run_for(name, "get", "pods", f"--selector=app.kubernetes.io/name={name}", "--output=json")
        found: list[dict[str, Any]] = json.loads(text)["items"]
        return found

    def restarts(self) -> dict[str, int]:
        """Return how often the containers of each pod of a workload were started again."""
        pods = [pod for name in self.workloads() for pod in self.pods(name)]
        return {
            pod["metadata"]["name"]: sum(one["restartCount"] for one in pod["status"].get("containerStatuses", []))
            for pod in pods
        }

    def node_address(self) -> str:
        """Return an address of a node, at which its ports are reached."""
        nodes = json.loads(self.run("get", "nodes", "--output=json"))["items"]
        addresses = [one for node in nodes for one in node["status"]["addresses"]]
        return next(
            str(one["address"]) for one in addresses if one["type"] == "InternalIP" and _is_ipv4(one["address"])
        )

    def _scale(self, workload: dict[str, Any], replicas: int) -> None:
        self.run_for(workload["metadata"]["name"], "scale", _resource(workload), f"--replicas={replicas}")


class ClusterStack(DoorsStack):
    """An overlay in the namespace `tlim`. It stays there after the stories, for a look at it.

    TLIM_E2E_OVERLAY names another overlay than `local` (manifests.py), or `production` (production.py).
    """

    def __init__(self) -> None:
        of_overlay = Production if OVERLAY == PRODUCTION else Manifests
        self._cluster = Cluster(of_overlay.elsewhere)
        host = self._cluster.node_address()
        self._manifests = of_overlay(OVERLAY, host)
        at = self._manifests
        ports = replace(Ports(), **DOORS)
        super().__init__(self._cluster, host, ports, at.ca_file, ready_s=READY_S, scheme=at.scheme)

    def start(self) -> None:
        """Apply everything, and return when every part is ready. Another's namespace is left alone."""
        for namespace in self._cluster.namespaces:
            self._refuse_others(namespace)
        self._manifests.prepare()
        for namespace, resources in self._manifests.rendered():
            self._cluster.run("delete", "jobs", "--all", "--ignore-not-found", namespace=namespace)
            self._cluster.run("apply", "--filename=-", namespace=namespace, stdin=resources)
            self._wait_ready_all()
            done = ("--for=condition=Complete", f"--timeout={READY_S}s")
            self._cluster.run("wait", "jobs", "--all", *done, namespace=namespace)
        self._restarts = self._cluster.restarts()

    def stop(self) -> None:
        """Leave everything as it is. Raises StackError if a container was started again: its liveness had failed."""
        self._refuse_restarts(self._restarts)

    def kill(self, name: str) -> None:
        """Kill all pods of a workload, and wait until others are ready and can be reached."""
        super().kill(name)
        self._wait_back(name)

    def start_service(self, name: str) -> None:
        self.supervisor.start(name)
        self._wait_back(name)

    def _wait_back(self, name: str) -> None:
        """Wait for a part that was away, and for the services that were not ready because of that."""
        for one in (name, *(SERVICES if name in SHARED else ())):
            self.wait_ready(one)

    def wait_ready(self, name: str) -> None:
        """Wait until all pods are ready, and the cluster leads to them, which it does some seconds later."""
        super().wait_ready(name)
        wait_until(lambda: self._is_reached(name), f"the way to {name}", READY_S)

    def _wait_ready_all(self) -> None:
        for name in self._cluster.workloads():
            self.wait_ready(name)

    def _is_reached(self, name: str) -> bool:
        if name in ASKED:
            return self._answers("GET", ASKED[name])
        return name != self.xmpp_name or (
            accepts_connections(self.ports.xmpp, self.addresses.xmpp_host)
            and all(self._answers("POST", "/v1/tokens", json=_stranger()) for _ in range(LOGINS))
        )

    def _answers(self, method: str, path: str, **request: Any) -> bool:
        """Tell whether the gateway, on a new connection, has an answer that is no failure; it may be a refusal."""
        with (
            suppress(httpx.TransportError),
            self.http(seconds=10) as http,
        ):
            return http.request(method, path, **request).status_code < httpx.codes.INTERNAL_SERVER_ERROR
        return False

    def roll(self, name: str) -> None:
        """Replace the pods of a workload one after another, and wait until the last one is gone."""
        self._cluster.roll(name)
        self.wait_ready(name)

    def renew_certificate(self, pem: str) -> None:
        """Put another certificate into ejabberd's Secret, as `kubectl apply` does after its file was changed."""
        data = {"xmpp.pem": b64encode(pem.encode()).decode()}
        self._cluster.run("patch", "secret", self.xmpp_name, f"--patch={json.dumps({'data': data})}")

    def xmpp_nodes(self) -> dict[str, int]:
        """Return the pods of ejabberd, and how many connections of clients each has."""
        names = sorted(pod["metadata"]["name"] for pod in self._cluster.pods(self.xmpp_name))
        return {name: self._cluster.clients(name) for name in names}

    def delete(self, pod: str, *, kill: bool = False) -> None:
        """Have a pod of ejabberd end, or end it at once, and wait until another one is ready."""
        self._cluster.delete(pod, kill=kill)
        self.wait_ready(self.xmpp_name)

    def server(self, name: str) -> tuple[str, int]:
        """Return host and port at which pods reach a server, by its name among the addresses of the overlay."""
        addresses = json.loads(self._cluster.run("get", "configmap", "addresses", "--output=json"))["data"]
        text = addresses[name]
        url = urlsplit(text if "://" in text else f"//{text}")
        return str(url.hostname), url.port or PORTS[url.scheme]

    def operate(self, *arguments: str) -> str:
        """Run the operator's command as a job and return what it printed; StackError with all of it if it fails."""
        made = self._cluster.run("create", "job", JOB, "--from=cronjob/admin", "--dry-run=client", "--output=json")
        job = json.loads(made)
        job["spec"]["template"]["spec"]["containers"][0]["args"] = [*arguments]
        self._cluster.run("apply", "--filename=-", stdin=json.dumps(job))
        try:
            wait_until(self._is_over, "the operator's command", READY_S)
            printed = self._cluster.run("logs", f"job/{JOB}")
            if not json.loads(self._cluster.run("get", "job", JOB, "--output=json"))["status"].get("succeeded"):
                raise StackError(printed)
        finally:
            self._cluster.run("delete", "job", JOB)
        return printed

    def _is_over(self) -> bool:
        status = json.loads(self._cluster.run("get", "job", JOB, "--output=json"))["status"]
        return bool(status.get("succeeded") or status.get("failed"))

    def evict(self, names: Sequence[str]) -> None:
        """Have all pods of these workloads leave, and wait until others are ready."""
        self._cluster.evict(names)
        for name in names:
            self.wait_ready(name)

    def be_without(self, name: str, seconds: float) -> None:
        """Stop a workload, start it again after this time, and return when every part is ready.

        Raises StackError if a container was started again.
        """
        self.stop_service(name)
        before, end = self._cluster.restarts(), time.monotonic() + seconds
        wait_until(lambda: time.monotonic() > end, f"the end of the time without {name}", seconds + 1)
        self._refuse_restarts(before)
        self.start_service(name)
        self._wait_ready_all()

    def _refuse_restarts(self, before: Mapping[str, int]) -> None:
        restarts = self._cluster.restarts()
        if again := sorted(pod for pod, count in restarts.items() if count > before.get(pod, 0)):
            raise StackError(f"containers were started again in {', '.join(again)}")

    def _refuse_others(self, namespace: str) -> None:
        found = json.loads(
            self._cluster.run("get", "namespaces", namespace, "--ignore-not-found", "--output=json") or "{}"
        )
        if found and "tlim-stories" not in found["metadata"]["labels"]:
            raise StackError(f"the namespace {namespace} is there already, and not of the stories: remove it first")


def _stranger() -> dict[str, str]:
    return {"username": f"nobody-{secrets.token_hex(4)}", "password": "none"}


def _resource(workload: dict[str, Any]) -> str:
    return f"{workload['kind'].lower()}/{workload['metadata']['name']}"


def _is_ready(pod: dict[str, Any]) -> bool:
    conditions = pod["status"].get("conditions", [])
    ready = any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)
    return ready and "deletionTimestamp" not in pod["metadata"]


def _is_ipv4(address: str) -> bool:
    return ipaddress.ip_address(address).version == 4
