"""The modules of the XMPP servers are in other languages: they name the elements that the protocol names."""

import re
from pathlib import Path

import pytest
from tlim_protocol.stanzas import CARBONS_NS, FORWARD_NS, HINTS_NS, TLIM_NS, Tag

DEPLOY = Path(__file__).resolve().parents[3] / "deploy"
ERLANG = (DEPLOY / "ejabberd" / "mod_tlim_bridge.erl").read_text(encoding="utf-8")
LUA = (DEPLOY / "prosody" / "mod_tlim_bridge.lua").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("source", "namespace", "element"),
    [
        (ERLANG, r'-define\(NS_TLIM, <<"([^"]*)">>\)', r'(?:is_ours|tag)\(<<"([^"]*)">>'),
        (LUA, r'local ns = "([^"]*)"', r'(?:\((?="[^"]*", ns\))|tell\(.*, )"([^"]*)"'),
    ],
    ids=["ejabberd", "Prosody"],
)
def test_the_module_of_an_xmpp_server_uses_the_names_of_the_protocol(source: str, namespace: str, element: str) -> None:
    assert re.findall(namespace, source) == [TLIM_NS]
    assert set(re.findall(element, source)) == {Tag.TLIM, Tag.RECALLED, Tag.MAILBOX, Tag.SESSION, Tag.MISSED}


def test_prosody_s_module_names_the_extensions_as_we_do() -> None:
    used = set(re.findall(r"urn:xmpp:[a-z]+(?::\d)?", LUA)) - {"urn:xmpp:delay"}
    assert used == {CARBONS_NS, FORWARD_NS, HINTS_NS}, "ejabberd's module takes them from ejabberd's own headers"
