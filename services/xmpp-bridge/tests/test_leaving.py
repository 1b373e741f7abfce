"""What the modules of the XMPP servers take for granted about a bridge that leaves."""

import re
from pathlib import Path

from xmpp_bridge.component import CLOSE_S
from xmpp_bridge.settings import Settings

DEPLOY = Path(__file__).parents[3] / "deploy"


def number_in(module: str, before: str) -> int:
    found = re.search(rf"{before}(\d+)", (DEPLOY / module).read_text())
    assert found
    return int(found[1])


def test_the_servers_keep_messages_back_for_longer_than_a_bridge_takes_to_leave() -> None:
    leaves = Settings.model_fields["shutdown_grace"].default.total_seconds() + CLOSE_S
    assert leaves < number_in("ejabberd/mod_tlim_bridge.erl", r"define\(DRAINING, ") / 1000
    assert leaves < number_in("prosody/mod_tlim_bridge.lua", r"longest_wait, most_waiting = ")
