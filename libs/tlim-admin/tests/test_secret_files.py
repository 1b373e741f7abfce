"""The secrets of a deployment: random, complete, private, and never replaced."""

import json
import os
import ssl
import stat
from pathlib import Path

import pytest
from tlim_admin.certificates import new_pair
from tlim_admin.secret_files import (
    AUTHORITY,
    CERTIFICATE,
    NATS_USERS,
    S3_IDENTITIES,
    XMPP_DATABASE,
    SecretError,
    check,
    random_names,
    write_missing,
    xmpp_password,
)
from tlim_protocol.streams import PERMISSIONS

DOMAIN = "chat.example.org"
OWNER = 10_001


@pytest.fixture
def secrets(tmp_path: Path) -> Path:
    directory = tmp_path / "secrets"
    write_missing(directory, DOMAIN, OWNER)
    return directory


def test_a_second_run_replaces_nothing(secrets: Path) -> None:
    before = {path.name: path.read_text() for path in secrets.iterdir()}

    assert write_missing(secrets, DOMAIN, OWNER) == []
    assert {path.name: path.read_text() for path in secrets.iterdir()} == before


def test_what_is_missing_is_made_and_the_rest_stays(secrets: Path) -> None:
    (secrets / "component").unlink()
    kept = (secrets / "xmpp-api").read_text()

    assert write_missing(secrets, DOMAIN, OWNER) == ["component"]
    assert (secrets / "xmpp-api").read_text() == kept


@pytest.mark.parametrize(("there", "missing"), [(CERTIFICATE, AUTHORITY), (AUTHORITY, CERTIFICATE)])
def test_a_certificate_that_was_put_there_is_not_replaced_because_its_authority_is_missing(
    tmp_path: Path, there: str, missing: str
) -> None:
    (tmp_path / there).write_text("of the operator")

    with pytest.raises(SecretError, match=f"{there} is there without {missing}"):
        write_missing(tmp_path, DOMAIN, OWNER)

    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {there: "of the operator"}


def test_a_run_that_was_killed_between_the_certificate_and_its_authority_is_finished_by_the_next(
    secrets: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in (CERTIFICATE, AUTHORITY):
        (secrets / name).unlink()
    replace = Path.replace
    named: list[str] = []

    def killed(self: Path, target: Path) -> Path:
        if named:
            raise KeyboardInterrupt
        named.append(target.name)
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        write_missing(secrets, DOMAIN, OWNER)
    monkeypatch.undo()
    assert (secrets / CERTIFICATE).exists() + (secrets / AUTHORITY).exists() == 1

    assert set(write_missing(secrets, DOMAIN, OWNER)) == {CERTIFICATE, AUTHORITY}
    context = ssl.create_default_context(cafile=secrets / AUTHORITY)
    context.load_cert_chain(secrets / CERTIFICATE)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_what_somebody_has_put_there_becomes_readable_for_its_user(secrets: Path) -> None:
    secret = secrets / "s3-file-api"
    os.chown(secret, 0, 0)

    write_missing(secrets, DOMAIN, OWNER)

    assert {path.stat().st_uid for path in secrets.iterdir()} == {OWNER}


def test_a_system_without_a_cluster_of_ejabberd_needs_no_password_for_it(secrets: Path) -> None:
    assert xmpp_password(secrets) == {"ejabberd": (secrets / XMPP_DATABASE).read_text()}
    (secrets / XMPP_DATABASE).unlink()
    check(secrets)
    assert xmpp_password(secrets) == {}


def test_no_two_secrets_are_the_same(secrets: Path) -> None:
    values = [(secrets / name).read_text() for name in random_names()]
    assert len(set(values)) == len(values)


def test_only_the_owner_reads_them_and_everybody_the_authority(secrets: Path) -> None:
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in secrets.iterdir()}
    assert modes.pop(AUTHORITY) == 0o444
    assert set(modes.values()) == {0o400}


def test_every_user_of_nats_has_the_password_of_its_file(secrets: Path) -> None:
    document = json.loads((secrets / NATS_USERS).read_text().removeprefix("authorization"))
    passwords = {user["user"]: user["password"] for user in document["users"]}
    assert passwords == {user: (secrets / f"nats-{user}").read_text() for user in PERMISSIONS}


def test_derived_files_follow_a_changed_secret(secrets: Path) -> None:
    secret = secrets / "s3-file-api"
    secret.unlink()
    secret.write_text("0123456789abcdef" * 3)

    with pytest.raises(SecretError, match=S3_IDENTITIES):
        check(secrets)
    assert write_missing(secrets, DOMAIN, OWNER) == [S3_IDENTITIES]
    check(secrets)


@pytest.mark.parametrize("value", ["", "changeme", "x" * 64, "-".join(["change-me"] * 4), "yourpassword" * 3])
def test_a_value_that_is_easy_to_guess_stops_the_start(secrets: Path, value: str) -> None:
    (secrets / "component").unlink()
    (secrets / "component").write_text(value)
    with pytest.raises(SecretError, match="component is too easy to guess"):
        check(secrets)


@pytest.mark.parametrize("domain", [DOMAIN, DOMAIN.upper(), "im.example.com"])
def test_a_certificate_that_names_the_domain_is_taken(secrets: Path, domain: str) -> None:
    (secrets / CERTIFICATE).unlink()
    (secrets / CERTIFICATE).write_text(new_pair(DOMAIN, also=["*.example.com"])[1])
    check(secrets, domain)


@pytest.mark.parametrize("domain", ["example.com", "a.im.example.com", "other.example.org", "org"])
def test_a_certificate_for_another_domain_stops_the_start(secrets: Path, domain: str) -> None:
    (secrets / CERTIFICATE).unlink()
    (secrets / CERTIFICATE).write_text(new_pair(DOMAIN, also=["*.example.com"])[1])
    with pytest.raises(SecretError, match=rf"xmpp.pem is for {DOMAIN}, .*, and TLIM_XMPP_DOMAIN is {domain}:"):
        check(secrets, domain)


def test_a_file_without_a_certificate_stops_the_start(secrets: Path) -> None:
    (secrets / CERTIFICATE).unlink()
    (secrets / CERTIFICATE).write_text("a note")
    with pytest.raises(SecretError, match=r"xmpp\.pem has no certificate"):
        check(secrets, DOMAIN)


def test_a_missing_secret_stops_the_start(secrets: Path) -> None:
    (secrets / "postgres-admin").unlink()
    with pytest.raises(SecretError, match="postgres-admin"):
        check(secrets)
