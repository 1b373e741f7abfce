"""Checks over HTTP: the services, the gateway, the keys of tokens, and the API of the XMPP server."""

import json
from pathlib import Path

from tlim_admin.doctor.clocks import judge_date
from tlim_admin.doctor.findings import Finding, doubtful, fine, wrong
from tlim_admin.http import Answer, ask


async def service(name: str, addresses: str) -> list[Finding]:
    """Look at /readyz of every instance in `addresses`, host:port with blanks between."""
    findings = []
    for address in addresses.split():
        answer = await ask(f"http://{address}/readyz")
        title, warnings = f"{name} {address}", json.loads(answer.body).get("warnings")
        if answer.status != 200:
            findings.append(wrong(title, f"not ready: {not_ready(answer)}", "mend what it names; its log says more"))
        elif warnings:
            findings.append(doubtful(title, _listed(warnings), "it works; somebody has to look after this"))
        else:
            findings.append(fine(title, "ready"))
    return findings


def not_ready(answer: Answer) -> str:
    """Return which checks of /readyz fail, and why."""
    try:
        checks: dict[str, str] = json.loads(answer.body)["checks"]
    except (ValueError, KeyError, TypeError):  # something else answers there
        return f"answers {answer.status}"
    return _listed({name: outcome for name, outcome in checks.items() if outcome != "ok"})


def _listed(said: dict[str, str]) -> str:
    return "; ".join(f"{name}: {sentence}" for name, sentence in said.items())


async def gateway(url: str, authority: Path | None) -> list[Finding]:
    """Look at the gateway, from where this command runs, and at its clock."""
    answer = await ask(f"{url.rstrip('/')}/healthz", authority=authority)
    if answer.status != 200:
        return [wrong("gateway", f"answers {answer.status}", "look into its log")]
    clock = judge_date("gateway", answer.headers.get("Date"), answer.before, answer.after)
    findings = [fine("gateway", url), clock]
    if not url.startswith("https:"):
        advice = (
            "add deploy/compose/tls.yml, in Kubernetes components/https, unless something before the gateway speaks TLS"
        )
        findings.append(doubtful("gateway TLS", "HTTP", advice))
    return findings


async def token_keys(url: str) -> list[Finding]:
    """Look at the keys by which services check tokens."""
    answer = await ask(url)
    keys = json.loads(answer.body).get("keys", []) if answer.status == 200 else []
    if not keys:
        return [wrong("token keys", f"{url} answers {answer.status}", "every service needs the keys of xmpp-bridge")]
    return [fine("token keys", f"{len(keys)}")]


async def accounts_api(url: str, token: str, domain: str) -> list[Finding]:
    """Look whether the API of the XMPP server takes our secret, and no other."""
    address, body = f"{url.rstrip('/')}/tlim_accounts", json.dumps({"host": domain, "after": "", "limit": 1}).encode()
    kind = {"Content-Type": "application/json"}
    ours = await ask(address, {**kind, "Authorization": f"Bearer {token}"}, body)
    others = await ask(address, {**kind, "Authorization": "Bearer somebody"}, body)
    if ours.status != 200:
        advice = "TLIM_XMPP_ADMIN_TOKEN must be the api_secret of ejabberd, and ejabberd must have mod_tlim_accounts"
        return [wrong("XMPP accounts", f"the API answers {ours.status}", advice)]
    if others.status not in {401, 403}:
        return [wrong("XMPP accounts", f"the API answers {others.status} without its secret", "close the API")]
    return [fine("XMPP accounts", "the API takes our secret, and no other")]
