"""Secrets are made once, kept from other users, and never shared between parts."""

import json
import ssl
import stat
from contextlib import suppress
from pathlib import Path

from tlim_devstack.certificates import ensure_certificates
from tlim_devstack.credentials import load_or_generate, token_key_file


def test_secrets_survive_a_restart(tmp_path: Path) -> None:
    assert load_or_generate(tmp_path / "secrets") == load_or_generate(tmp_path / "secrets")


def test_secrets_of_an_older_release_stay_and_what_is_new_is_added(tmp_path: Path) -> None:
    now = load_or_generate(tmp_path)
    kept = json.loads((tmp_path / "credentials.json").read_text())
    del kept["xmpp_api"]
    (tmp_path / "credentials.json").write_text(json.dumps(kept))

    upgraded = load_or_generate(tmp_path)

    assert (upgraded.component, upgraded.xmpp_api != now.xmpp_api) == (now.component, True)
    assert load_or_generate(tmp_path) == upgraded


def test_two_stacks_share_no_secret(tmp_path: Path) -> None:
    one, other = load_or_generate(tmp_path / "one"), load_or_generate(tmp_path / "other")
    assert one.component != other.component
    assert not set(one.nats.values()) & set(other.nats.values())
    assert len(set(one.nats.values()) | set(one.postgres_roles.values())) == len(one.nats) + len(one.postgres_roles)


def test_nobody_else_can_read_them(tmp_path: Path) -> None:
    load_or_generate(tmp_path / "secrets")
    ensure_certificates(tmp_path / "secrets", "example.org")
    assert stat.S_IMODE((tmp_path / "secrets").stat().st_mode) == 0o700
    for name in ("credentials.json", token_key_file(tmp_path).name, "example.org.pem"):
        assert stat.S_IMODE((tmp_path / "secrets" / name).stat().st_mode) == 0o600


def test_the_certificate_is_vouched_for_by_the_authority(tmp_path: Path) -> None:
    authority, server = ensure_certificates(tmp_path, "example.org")
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    serving.load_cert_chain(server)
    client_in, client_out, server_in, server_out = (ssl.MemoryBIO() for _ in range(4))
    trusting = ssl.create_default_context(cafile=authority)
    trusting.verify_flags |= ssl.VERIFY_X509_STRICT  # Python 3.13 sets it by default
    client = trusting.wrap_bio(client_in, client_out, server_hostname="example.org")
    peer = serving.wrap_bio(server_in, server_out, server_side=True)
    for _ in range(3):
        for side, out, into in ((client, client_out, server_in), (peer, server_out, client_in)):
            with suppress(ssl.SSLWantReadError):
                side.do_handshake()
            into.write(out.read())
    certificate = client.getpeercert()
    assert certificate is not None
    assert certificate["subjectAltName"][0] == ("DNS", "example.org")
