"""What is set outside of the services, for docs/settings.md: what the gateway, Compose and scripts/images read."""

import re
from typing import NamedTuple

from tests.deploy.images import ROOT


class Outside(NamedTuple):
    """A table of docs/settings.md: its heading, the sentence below, and the meaning of each variable."""

    heading: str
    sentence: str
    meanings: dict[str, str]


GATEWAY = Outside(
    "gateway",
    "`deploy/caddy/Caddyfile` reads them. In containers docker-compose.yml and the manifests give the addresses.",
    {
        "TLIM_BIND": "The address on which the gateway listens. In a container that is every address.",
        "TLIM_CERTIFICATE_FILE": "The certificate with its chain, if the gateway speaks HTTPS.",
        "TLIM_CERTIFICATE_KEY_FILE": "Its key; it may be in the same file.",
        "TLIM_CORS_ORIGINS": "The same list as that of the services.",
        "TLIM_FILE_API": "The address of file-api.",
        "TLIM_GATEWAY_SCHEME": "`http` or `https`. With `https` both doors speak TLS only. `tls.yml` "
        "sets it in compose, and `components/https` in Kubernetes.",
        "TLIM_MESSAGE_STORE": "The address of message-store.",
        "TLIM_PAGES": "The folder with `openapi.json`.",
        "TLIM_PORT_FILES": "The port of signed addresses, which lead to S3.",
        "TLIM_PORT_GATEWAY": "The port of the API.",
        "TLIM_S3": "The address of S3, for the port of signed addresses.",
        "TLIM_S3_BUCKET": "The bucket, the only one to which signed addresses lead.",
        "TLIM_SESSION_API": "The address of session-api.",
        "TLIM_TRUSTED_PROXIES": "The addresses of proxies before the gateway, such as `10.0.0.0/8 192.0.2.7/32`: their "
        "X-Forwarded-For says where people call from. By default nobody's counts.",
        "TLIM_XMPP_BRIDGE": "The address of xmpp-bridge.",
    },
)

CONTAINERS = Outside(
    "containers",
    "docker-compose.yml and its overrides, and `scripts/images`, read them from the environment or from `.env`. The "
    "last two stand in the manifests, and have no `TLIM_`.",
    {
        "TLIM_BIND": "The address of the published ports. Any other than loopback needs `tls.yml`, or a proxy with TLS "
        "in `TLIM_TRUSTED_PROXIES`; all of them at once (`0.0.0.0`) need `tls.yml`.",
        "TLIM_CERTIFICATE_FILE": "With `tls.yml`: the gateway's certificate with chain and key, a file of the host.",
        "TLIM_IMAGES": "What the names of our images begin with, such as `registry.example.com/tlim`.",
        "TLIM_PORT_FILES": "The published port of signed addresses.",
        "TLIM_PORT_GATEWAY": "The published port of the API.",
        "TLIM_PORT_WEBSOCKET": "The published port of XMPP over WebSocket.",
        "TLIM_PORT_XMPP": "The published port of XMPP.",
        "TLIM_REGISTRY": "Where the images of others come from, for example a mirror.",
        "TLIM_VERSION": "The tag of our images: the release.",
        "TLIM_BASE_DEBIAN": "The image on which that of ejabberd is built, in place of the one in deploy/images.lock.",
        "TLIM_BASE_PYTHON": "The image on which our other images are built, in place of the one in deploy/images.lock.",
        "FORWARDED_ALLOW_IPS": "Whose X-Forwarded-For xmpp-bridge believes (uvicorn). In containers it is `*`: only "
        "the gateway and our services reach it, and the gateway writes what it sees.",
        "XMPP_NODES": "How many nodes a cluster of ejabberd has (`components/xmpp-cluster`): as many as `replicas`.",
    },
)

_READ_BY = {
    GATEWAY.heading: (("deploy/caddy/Caddyfile",), r"\{\$NAME:([^}]*)\}"),
    CONTAINERS.heading: (("docker-compose.yml", "deploy/compose/tls.yml", "scripts/images"), r"\$\{NAME:-([^}]*)\}"),
}


def lines_of(table: Outside) -> list[str]:
    """Return the lines of the table, with the defaults of the files that read the variables."""
    files, default = _READ_BY[table.heading]
    text = "".join((ROOT / file).read_text(encoding="utf-8") for file in files)
    rows = []
    for name, meaning in table.meanings.items():
        found = re.search(default.replace("NAME", name), text)
        literal = found is not None and "$" not in found[1]
        rows.append(f"| `{name}` | {f'`{found[1]}`' if found and literal else ''} | {meaning} |")
    return ["", f"## {table.heading}", "", table.sentence, "", "| name | default | meaning |", "|---|---|---|", *rows]
