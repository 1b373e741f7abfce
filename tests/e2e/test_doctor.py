"""The operator's doctor: it finds a sound system sound, and says what is wrong with any other."""

import json
from pathlib import Path

import pytest
from tlim_devstack.stack import Stack
from tlim_devstack.waiting import free_port

from tests.e2e.clients.operator import Operator
from tests.e2e.conftest import XMPP

pytestmark = pytest.mark.skipif(XMPP != "ejabberd", reason="it looks at ejabberd's API")

Findings = dict[str, dict[str, str]]


def findings_of(printed: str) -> Findings:
    return {finding["name"]: finding for finding in json.loads(printed)}


@pytest.fixture
def operator(stack: Stack, tmp_path: Path) -> Operator:
    return Operator(tmp_path, stack)


def test_the_doctor_finds_a_running_system_sound(operator: Operator) -> None:
    findings = findings_of(operator.run("doctor", "--json"))

    states = {name: finding["state"] for name, finding in findings.items()}
    assert states.pop("gateway TLS") == "warning"  # the stories speak HTTP
    assert set(states.values()) == {"ok"}, [one for one in findings.values() if one["state"] != "ok"]
    assert {
        "PostgreSQL locks message_store",
        "S3 public address",
        "NATS streams",
        "XMPP certificate",
        "XMPP accounts",
    } <= set(states)


def test_the_doctor_names_what_is_wrong_and_what_to_change(operator: Operator) -> None:
    (operator.home / "secrets").mkdir()
    (operator.home / "secrets" / "component").write_text("secret")
    nowhere = f"127.0.0.1:{free_port()}"

    said = operator.refused(
        "doctor",
        "--json",
        TLIM_S3_PUBLIC_URL=f"http://{nowhere}",
        TLIM_NATS_URL=f"nats://{nowhere}",
        TLIM_MESSAGE_STORE=nowhere,
        TLIM_XMPP_ADMIN_TOKEN="0123456789abcdef" * 3,
        TLIM_XMPP_DOMAIN="chat.example.org",
    )

    wrong = {name: finding for name, finding in findings_of(said).items() if finding["state"] == "wrong"}
    assert set(wrong) == {
        "secrets", "S3 public address", "NATS", "message-store", "XMPP accounts", "XMPP certificate",
    }  # fmt: skip
    assert all(finding["advice"] for finding in wrong.values())
