"""The file of the keys that sign tokens: xmpp-bridge signs with the first, and publishes all of them.

A key is replaced in three steps, with a restart of xmpp-bridge after each. A service that does not know a key yet asks
for it, but a bridge that has not restarted would not answer with it. So a new key is published before it signs.
"""

import re
from enum import StrEnum
from pathlib import Path

from tlim_admin.secret_files import SecretError, new_token_key, replace

_BLOCK = re.compile(r"-----BEGIN PRIVATE KEY-----.+?-----END PRIVATE KEY-----\s*", re.DOTALL)


class Step(StrEnum):
    """The steps, in their order."""

    ADD = "add"
    """A new key is published, and signs nothing yet."""
    USE = "use"
    """The newest key signs. Tokens of the old one stay good."""
    FORGET = "forget"
    """Only the key that signs is left: an hour after USE, when the last token of the old key has ended."""


def rotate(file: Path, step: Step) -> int:
    """Take a step; return how many keys are in the file now. Raises SecretError if this is not the next step."""
    try:
        text = file.read_text()
    except OSError as error:
        raise SecretError(f"{file}: {error.strerror}") from error
    keys = [block.strip() + "\n" for block in _BLOCK.findall(text)]
    if not keys:
        raise SecretError(f"{file} holds no key")
    if step is Step.ADD:
        if len(keys) > 1:
            raise SecretError(f"{file} has {len(keys)} keys already: use the new one, or forget the old one")
        keys.append(new_token_key())
    elif len(keys) < 2:
        raise SecretError(f"{file} has one key: add a new one first")
    else:
        keys = [keys[-1], *keys[:-1]] if step is Step.USE else keys[:1]
    replace(file, "".join(keys))
    return len(keys)
