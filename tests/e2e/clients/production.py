"""overlays/production, filled in as deploy/k8s/README.md says, with its servers outside in a namespace of their own."""

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import ClassVar

import yaml
from tlim_admin import secret_files
from tlim_admin.certificates import new_pair
from tlim_devstack.xmpp_servers import DOMAIN

from tests.deploy.rendering import as_it_says
from tests.e2e.clients.containers import ROOT, printed_by
from tests.e2e.clients.manifests import CHANGES, DOORS, NAMESPACE, Manifests, kustomized

PRODUCTION = ROOT / "deploy/k8s/overlays/production"
OUTSIDE = "tlim-outside"
AUTHORITIES = {
    ("ca.pem", "xmpp.pem"): (DOMAIN, "ejabberd", "gateway"),
    ("outside-ca.pem", "outside.pem"): ("postgres.tlim-outside", "s3.tlim-outside"),
}
"""Authority and certificate → its names, besides the node's address. The second is that of PostgreSQL and S3."""


class Production(Manifests):
    """It runs on one node, which people reach over TLS. Its secrets stay between two runs, as the data does."""

    scheme = "https"
    elsewhere: ClassVar[Mapping[str, str]] = {"postgres": OUTSIDE, "s3": OUTSIDE}

    def __init__(self, overlay: Path, node: str, secrets: Path | None = None) -> None:
        super().__init__(overlay, node)
        self._secrets = secrets or CHANGES / "outside/secrets" / node

    @property
    def ca_file(self) -> Path:
        return self._secrets / "ca.pem"

    def prepare(self) -> None:
        """Make the secrets that are missing, and have this process, and what it starts, trust both authorities."""
        for (authority, certificate), (first, *others) in AUTHORITIES.items():
            if not (self._secrets / certificate).exists():
                self._secrets.mkdir(mode=0o700, parents=True, exist_ok=True)
                texts = new_pair(first, also=(*others, self.node))
                for name, text in zip((authority, certificate), texts, strict=True):
                    (self._secrets / name).touch(0o600)
                    (self._secrets / name).write_text(text)
        secret_files.write_missing(self._secrets, DOMAIN, os.getuid())
        trusted = self._secrets / "trusted.pem"
        trusted.write_text("".join((self._secrets / authority).read_text() for authority, _ in AUTHORITIES))
        os.environ["SSL_CERT_FILE"] = str(trusted)

    def rendered(self) -> Iterator[tuple[str, str]]:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name).resolve()
            overlay, outside = self._copied(folder)
            yield OUTSIDE, printed_by("kubectl", "kustomize", str(outside))
            gateway = f"gateway={self.scheme}://{self.node}:{DOORS['gateway']}"
            yield NAMESPACE, kustomized(self.changed(overlay, folder, CHANGES / "production", gateway), folder)

    def _copied(self, folder: Path) -> tuple[Path, Path]:
        """Copy the manifests, fill in what an operator does, and return the folders of overlay and of OUTSIDE."""
        for one in (ROOT / "deploy", CHANGES):
            ignored = shutil.ignore_patterns("secrets", "*.pem", "wheelhouse")
            shutil.copytree(one, folder / one.relative_to(ROOT), ignore=ignored)
        overlay, outside = (folder / one.relative_to(ROOT) for one in (self.overlay, CHANGES / "outside"))
        for one in (overlay, outside):
            shutil.copytree(self._secrets, one / "secrets")
        shutil.copy(self._secrets / "outside-ca.pem", overlay / "secrets/postgres-ca.pem")
        file = overlay / "kustomization.yaml"
        kustomization = yaml.safe_load(file.read_text(encoding="utf-8"))
        as_it_says("external-postgres")(overlay, kustomization)
        file.write_text(yaml.safe_dump(kustomization), encoding="utf-8")
        return overlay, outside
