import re
from itertools import chain, product

from tlim_protocol.asyncapi import CHANNELS, PARAMETERS, REQUESTS, document
from tlim_protocol.identity import shard_of
from tlim_protocol.registry import MsgType
from tlim_protocol.streams import PERMISSIONS
from tlim_protocol.subjects import Rpc, subject_in


def matches(pattern: str, subject: str) -> bool:
    return re.fullmatch(re.escape(pattern).replace(r"\*", "[^.]+").replace(">", ".+"), subject) is not None


def subjects(address: str) -> list[str]:
    """All subjects of an address; `x` stands for what has no list of values."""
    parts = [PARAMETERS[part[1:-1]].get("enum", ["x"]) if part[0] == "{" else [part] for part in address.split(".")]
    return [".".join(chosen) for chosen in product(*parts)]


def test_every_request_is_described_and_has_one_service_that_answers() -> None:
    operations = document()["operations"]
    assert set(REQUESTS) == set(Rpc)
    for subject in Rpc:
        (name,) = [name for name, what in document()["channels"].items() if what["address"] == subject]
        assert [one for one in operations if one.endswith(f".receive.{name}")], subject
        assert [one for one in operations if one.endswith(f".send.{name}")], subject


def test_every_subject_that_a_user_of_nats_may_use_is_described() -> None:
    addresses = [*chain.from_iterable(subjects(row.address) for row in CHANNELS.values()), *Rpc]
    for pattern in {*chain.from_iterable((*one.publish, *one.subscribe) for one in PERMISSIONS.values())}:
        if pattern.startswith("tlim."):
            assert any(matches(pattern, address) for address in addresses), pattern


def test_who_sends_and_who_receives_follows_from_streams_and_permissions() -> None:
    operations = set(document()["operations"])
    assert {one for one in operations if one.endswith((".accepted", ".sessions", ".out", ".files"))} == {
        "xmpp-bridge.send.accepted", "message-store.receive.accepted",
        "session-api.send.sessions", "message-store.receive.sessions",
        "message-store.send.out", "xmpp-bridge.receive.out",
        "message-store.send.accepted", "message-store.send.sessions",  # dead letters, once more
        "file-api.send.files",  # only an operator reads them
    }  # fmt: skip


def test_a_subject_of_the_code_is_one_of_the_document() -> None:
    parameters = document()["channels"]["accepted"]["parameters"]
    _, _, kind, shard = subject_in(MsgType.TEXT, "u:alice:bob").split(".")
    assert kind in parameters["clientType"]["enum"]
    assert parameters["shard"]["enum"][shard_of("u:alice:bob")] == shard
