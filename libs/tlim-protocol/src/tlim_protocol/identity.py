"""Who and where: user ids, conversation ids and their shards."""

import stringprep
import unicodedata
import zlib
from functools import lru_cache

from tlim_protocol.characters import shows_something
from tlim_protocol.errors import ErrorCode, TlimError, quoted

SHARDS = 16
"""Fixed for the life of a deployment: a conversation's log must stay in one shard."""

DELIVERY_SHARDS = 8
"""Into so many parts the deliveries are divided, by the person who gets them. A bridge has whole parts, so this is also
the largest number of bridges that share the work. Fixed for the life of a deployment, like SHARDS."""

MAX_ID = 64
"""Specification section 2: ids (msg_id, from, to, session_id) hold at most 64 characters."""

_DIRECT = "u:"

_MAX_RAW = 4 * MAX_ID  # folding drops some characters and joins others
_FORBIDDEN_IN_LOCALPART = frozenset("\"&'/:<>@")  # RFC 7622 section 3.3.1
_ASCII_LOCALPART = frozenset("!#$%()*+,-.0123456789;=?[\\]^_`abcdefghijklmnopqrstuvwxyz{|}~")


def normalize_user_id(raw: str) -> str:
    """Return the user id as XMPP compares localparts (nodeprep, RFC 6122 appendix A): case-folded, NFKC.

    Raises TlimError FIELD_INVALID for what cannot be a localpart or is longer than 64 characters.
    """
    if len(raw) > _MAX_RAW:  # refused before the cache, which would keep megabytes of useless text
        raise _no_user_id(raw)
    return _normalized(raw)


@lru_cache(maxsize=65_536)
def _normalized(raw: str) -> str:
    folded = raw.lower()
    if not _ASCII_LOCALPART.issuperset(folded):
        mapped = "".join(stringprep.map_table_b2(char) for char in raw if not stringprep.in_table_b1(char))
        folded = unicodedata.normalize("NFKC", mapped)
        # nodeprep knows only Unicode 3.2. Newer characters are refused: folding them twice could give another id.
        if any(stringprep.in_table_a1(char) for char in raw + folded):
            raise _no_user_id(raw)
    if not folded or len(folded) > MAX_ID or not _is_localpart(folded):
        raise _no_user_id(raw)
    return folded


def _no_user_id(raw: str) -> TlimError:
    return TlimError(ErrorCode.FIELD_INVALID, f"{quoted(raw)} is not a user id", field="user_id")


def _is_localpart(folded: str) -> bool:
    if _ASCII_LOCALPART.issuperset(folded):
        return True
    if not shows_something(folded):  # a user without a name is shown by their id, so it must be visible
        return False
    return _FORBIDDEN_IN_LOCALPART.isdisjoint(folded) and not any(
        char.isspace() or unicodedata.category(char)[0] == "C" for char in folded
    )


def conversation_of_users(one: str, other: str) -> str:
    """Return the id of the 1:1 conversation of two normalised user ids: `u:<smaller>:<larger>`."""
    return f"{_DIRECT}{min(one, other)}:{max(one, other)}"


def is_direct(conversation_id: str) -> bool:
    """Tell a conversation of two people from a session."""
    return conversation_id.startswith(_DIRECT)


def shard_of(conversation_id: str, shards: int = SHARDS) -> int:
    """Return the shard of a conversation, 0 <= shard < shards: crc32 modulo shards. All its events go there."""
    return zlib.crc32(conversation_id.encode()) % shards


def delivery_shard(user_id: str) -> int:
    """Return the shard of a normalised user id, 0 <= shard < DELIVERY_SHARDS: what goes to the person's devices."""
    return zlib.crc32(user_id.encode()) % DELIVERY_SHARDS
