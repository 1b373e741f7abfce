"""The users of NATS: a part of its configuration, written from the protocol library's permissions."""

import json
from collections.abc import Mapping

from tlim_protocol.streams import PERMISSIONS


def users_document(passwords: Mapping[str, str]) -> str:
    """Return the `authorization` part of the configuration: one user per service (JSON is valid there).

    `passwords` has a password for each user of the protocol library's PERMISSIONS. A user with any other name may do
    everything.
    """
    users: list[dict[str, object]] = []
    for name, password in passwords.items():
        user: dict[str, object] = {"user": name, "password": password}
        allowed = PERMISSIONS.get(name)
        if allowed is not None:
            user["permissions"] = {
                "publish": list(allowed.publish),
                "subscribe": list(allowed.subscribe),
                "allow_responses": allowed.responds,
            }
        users.append(user)
    return "authorization " + json.dumps({"users": users}, indent=1) + "\n"
