"""A token request is answered for a user of the domain only, and every refusal is a proper stanza error."""

import asyncio
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from xml.etree import ElementTree as ET

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from tlim_protocol.events import UserMeet, UsersKnown
from tlim_runtime.outages import BrokerUnavailable
from tlim_runtime.throttle import Throttle
from xmpp_bridge.sasl import WrongPasswordError
from xmpp_bridge.token_requests import TokenRequests
from xmpp_bridge.token_service import TokenDesk
from xmpp_bridge.tokens import TokenIssuer, read_keys
from xmpp_bridge.translate import BridgeAddresses

DOMAIN = "im.itonglian.com"
ADDRESSES = BridgeAddresses(DOMAIN, f"bridge.{DOMAIN}")
TOKEN = f"{{{DOMAIN}}}token"
STANZAS = "{urn:ietf:params:xml:ns:xmpp-stanzas}"


class NoLogins:
    async def check(self, user_id: str, password: str, begins: Callable[[], None]) -> None:
        begins()
        raise WrongPasswordError(f"{user_id} has no password, not even {password}")


class FakeDirectory:
    def __init__(self) -> None:
        self.is_up = True
        self.seen: list[str] = []
        self.deactivated: set[str] = set()

    async def request(self, subject: str, payload: bytes) -> bytes:
        if not self.is_up:
            raise BrokerUnavailable(f"no answer on {subject}")
        question = UserMeet.from_bytes(payload)
        self.seen.extend(question.seen)
        return UsersKnown(known=[one for one in question.ask if one not in self.deactivated]).to_bytes()


class FakeAnswers:
    """The component; a test waits for what is sent."""

    def __init__(self) -> None:
        self.sent: asyncio.Queue[ET.Element] = asyncio.Queue()

    def send(self, stanzas: str) -> None:
        self.sent.put_nowait(ET.XML(stanzas))


@pytest.fixture
def directory() -> FakeDirectory:
    return FakeDirectory()


@pytest.fixture
def answers() -> FakeAnswers:
    return FakeAnswers()


@pytest.fixture
def requests(tmp_path: Path, directory: FakeDirectory, answers: FakeAnswers) -> TokenRequests:
    key_file = tmp_path / "keys.pem"
    key_file.write_bytes(Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    desk = TokenDesk(
        NoLogins(),
        directory,
        TokenIssuer(read_keys(key_file), "tlim", "tlim"),
        per_user=Throttle("1/minute", "user"),
        failures_per_user=Throttle("1/minute", "address"),
        failures_per_address=Throttle("1/minute", "address"),
        per_session=Throttle("2/minute", "user"),
        lifetime=timedelta(hours=1),
        failure_delay=timedelta(0),
    )
    return TokenRequests(desk, answers, ADDRESSES)


def request(sender: str, payload: str = f"<token xmlns='{DOMAIN}'/>", kind: str = "get") -> ET.Element:
    return ET.XML(f"<iq type='{kind}' id='i1' from='{sender}' to='{ADDRESSES.component}'>{payload}</iq>")


def condition(answer: ET.Element) -> tuple[str | None, str]:
    (error,) = answer
    return error.get("type"), error[0].tag.removeprefix(STANZAS)


async def test_a_user_of_the_domain_gets_a_token_for_himself(
    requests: TokenRequests, answers: FakeAnswers, directory: FakeDirectory
) -> None:
    assert requests.take(request(f"Alice@{DOMAIN}/phone"))
    answer = await answers.sent.get()
    (token,) = answer
    assert (answer.get("type"), answer.get("id"), answer.get("to")) == ("result", "i1", f"Alice@{DOMAIN}/phone")
    assert (token.tag, token.get("expires_in")) == (TOKEN, "3600")
    claims = jwt.decode(token.text or "", options={"verify_signature": False})
    assert (claims["sub"], claims["scope"]) == ("alice", "")
    assert directory.seen == ["alice"]


@pytest.mark.parametrize(
    "stranger",
    [
        "alice@evil.example/x",
        f"alice@{ADDRESSES.component}",
        DOMAIN,
        f"@{DOMAIN}/x",
        ADDRESSES.component,
        f"{'a' * 65}@{DOMAIN}/x",
    ],
)
async def test_nobody_else_gets_one(
    requests: TokenRequests, answers: FakeAnswers, directory: FakeDirectory, stranger: str
) -> None:
    assert requests.take(request(stranger))
    assert condition(await answers.sent.get()) == ("auth", "forbidden")
    assert directory.seen == []


async def test_who_is_deactivated_gets_none(
    requests: TokenRequests, answers: FakeAnswers, directory: FakeDirectory
) -> None:
    directory.deactivated.add("alice")
    requests.take(request(f"alice@{DOMAIN}/phone"))
    assert condition(await answers.sent.get()) == ("auth", "forbidden")


async def test_who_asks_too_often_is_told_to_wait(requests: TokenRequests, answers: FakeAnswers) -> None:
    for _ in range(2):
        requests.take(request(f"alice@{DOMAIN}/phone"))
        assert (await answers.sent.get()).get("type") == "result"
    requests.take(request(f"alice@{DOMAIN}/tablet"))
    assert condition(await answers.sent.get()) == ("wait", "resource-constraint")


async def test_without_the_directory_it_is_not_now(
    requests: TokenRequests, answers: FakeAnswers, directory: FakeDirectory
) -> None:
    directory.is_up = False
    requests.take(request(f"alice@{DOMAIN}/phone"))
    assert condition(await answers.sent.get()) == ("wait", "recipient-unavailable")


@pytest.mark.parametrize(
    "other",
    [
        request(f"alice@{DOMAIN}/x", kind="set"),
        request(f"alice@{DOMAIN}/x", kind="result"),
        request(f"alice@{DOMAIN}/x", "<token xmlns='elsewhere'/>"),
        request(f"alice@{DOMAIN}/x", ""),
    ],
)
async def test_anything_else_is_left_to_others(requests: TokenRequests, other: ET.Element) -> None:
    assert not requests.take(other)
