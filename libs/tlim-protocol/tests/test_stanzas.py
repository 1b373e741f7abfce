"""The modules of the XMPP servers are in other languages: they name the elements that the protocol names."""

import re
from pathlib import Path

import pytest
from tlim_protocol.stanzas import CARBONS_NS, FORWARD_NS, HINTS_NS, TLIM_NS, Tag

DEPLOY = Path(__file__).resolve().parents[3] / "deploy"
ERLANG, LUA = (
    "".join((DEPLOY / name).read_text(encoding="utf-8") for name in names)
    for names in (
        [f"ejabberd/{name}.erl" for name in ("mod_tlim_bridge", "tlim_session", "tlim_delivery", "tlim_recall")],
        ("prosody/mod_tlim_bridge.lua", "prosody/tlim_recall.lib.lua"),
    )
)


@pytest.mark.parametrize(
    ("source", "namespace", "element"),
    [
        (ERLANG, r'-define\(NS_TLIM, <<"([^"]*)">>\)', r'(?:named|tag)\(<<"([^"]*)">>'),
        (LUA, r'local ns = "([^"]*)"', r'(?:\((?="[^"]*", ns\))|tell\(.*, )"([^"]*)"'),
    ],
    ids=["ejabberd", "Prosody"],
)
def test_the_module_of_an_xmpp_server_uses_the_names_of_the_protocol(source: str, namespace: str, element: str) -> None:
    assert set(re.findall(namespace, source)) == {TLIM_NS}
    names = {Tag.TLIM, Tag.RECALLED, Tag.MAILBOX, Tag.SESSION, Tag.MISSED, Tag.DRAINING}
    assert set(re.findall(element, source)) == names


def test_prosody_s_module_names_the_extensions_as_we_do() -> None:
    used = set(re.findall(r"urn:xmpp:[a-z]+(?::\d)?", LUA)) - {"urn:xmpp:delay"}
    assert used == {CARBONS_NS, FORWARD_NS, HINTS_NS}, "ejabberd's module takes them from ejabberd's own headers"
