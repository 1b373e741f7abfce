"""What is applied for the stories in a cluster: an overlay, with what they change (tests/e2e/kubernetes)."""

import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import yaml

from tests.e2e.clients.containers import ROOT, printed_by
from tests.e2e.clients.web import WEB_ORIGIN

NAMESPACE = "tlim"
DOORS = {"gateway": 30090, "files": 30091, "xmpp": 30522, "websocket": 30580}
"""The ports of the node that tests/e2e/kubernetes opens."""

LOCAL = ROOT / "deploy/k8s/overlays/local"
OVERLAY = Path(os.environ.get("TLIM_E2E_OVERLAY", LOCAL)).resolve()
CHANGES = ROOT / "tests/e2e/kubernetes"


class Manifests:
    """An overlay that has everything in the cluster, with the secrets of `local`; `node` is where people reach it.

    With TLIM_E2E_XMPP_CLUSTER ejabberd has two nodes.
    """

    scheme = "http"
    elsewhere: ClassVar[Mapping[str, str]] = {}
    """Server → its namespace, if that is another one than the system's."""

    def __init__(self, overlay: Path, node: str) -> None:
        self.overlay, self.node = overlay, node

    @property
    def ca_file(self) -> Path:
        """The authority of ejabberd's certificate."""
        return LOCAL / "secrets" / "ca.pem"

    def prepare(self) -> None:
        """Make what is missing before anything is rendered."""

    def rendered(self) -> Iterator[tuple[str, str]]:
        """Yield each namespace with what is applied to it, in this order."""
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name).resolve()
            changed = self.changed(self.overlay, folder, CHANGES / "files")
            if os.environ.get("TLIM_E2E_XMPP_CLUSTER"):
                _add_xmpp_cluster(changed, folder)
            yield NAMESPACE, kustomized(changed, folder)

    def changed(self, overlay: Path, folder: Path, component: Path, *where: str) -> dict[str, Any]:
        """Return a kustomization for `folder`: the overlay with our changes, those of a component, and addresses."""
        ours = [f"s3-public={self.scheme}://{self.node}:{DOORS['files']}", f"cors-origins={json.dumps([WEB_ORIGIN])}"]
        return {
            "namespace": NAMESPACE,
            "resources": [os.path.relpath(overlay, folder)],
            "components": [os.path.relpath(one, folder) for one in (CHANGES, component)],
            "generatorOptions": {"disableNameSuffixHash": True},
            "configMapGenerator": [{"name": "addresses", "behavior": "merge", "literals": [*ours, *where]}],
        }


def kustomized(kustomization: Mapping[str, Any], folder: Path) -> str:
    """Return what a kustomization in this folder stands for."""
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(kustomization), encoding="utf-8")
    return printed_by("kubectl", "kustomize", str(folder))


def _add_xmpp_cluster(kustomization: dict[str, Any], folder: Path) -> None:
    """Make ejabberd a cluster. kustomize reads files below its own folder only, so the secret is copied there."""
    secret = "postgres-ejabberd"
    shutil.copy(LOCAL / "secrets" / secret, folder / secret)
    kustomization["resources"].append(os.path.relpath(ROOT / "deploy/k8s/jobs/xmpp-cluster", folder))
    kustomization["components"].append(os.path.relpath(ROOT / "deploy/k8s/components/xmpp-cluster", folder))
    kustomization["images"] = [{"name": "localhost/tlim/ejabberd", "newTag": "dev"}]
    kustomization["secretGenerator"] = [
        {"name": name, "files": [secret], **({} if name.startswith("migrate") else {"behavior": "merge"})}
        for name in ("ejabberd", "databases", "migrate-ejabberd")
    ]
