"""The SQL of the table of mailboxes: notes of the bridge, people who are present, and where a mailbox stands."""

import json
from collections.abc import Collection, Sequence
from typing import NamedTuple

from tlim_protocol.identity import delivery_shard
from tlim_protocol.mailboxes import LivePerson, MailboxNote
from tlim_runtime.transactions import Connection

from message_store.statements import NamedStatement

_TERM = NamedStatement("SELECT term FROM delivery_shards WHERE shard = :shard FOR UPDATE")

_BEGIN_TERM = NamedStatement(
    "UPDATE delivery_shards SET term = term + 1, noted = 0 WHERE shard = :shard RETURNING term"
)

_TAKE = NamedStatement(
    "UPDATE delivery_shards SET noted = :number WHERE shard = :shard AND noted < :number RETURNING noted"
)

_SETTLE = NamedStatement("""
    UPDATE delivery_shards SET settled_seq = greatest(settled_seq, :seq), settled_at = greatest(settled_at, :at)
    WHERE shard = :shard AND (settled_seq < :seq OR settled_at < :at)""")

# Every transaction locks rows in the order of user ids, so two of them never wait for each other. DO UPDATE locks a row
# that is there, and WHERE false leaves it as it is.
_LOCK = NamedStatement("""
    INSERT INTO mailboxes (user_id, taken_seq, shard)
    SELECT user_id, start_seq, :shard FROM unnest(CAST(:user_ids AS text[])) AS noted (user_id), delivery
    ORDER BY user_id
    ON CONFLICT (user_id) DO UPDATE SET user_id = excluded.user_id WHERE false""")

# greatest() and least() leave out NULLs. A seq that no row has yet is a mistake: a mailbox that stands there would skip
# messages. numeric, because such a number may be larger than a bigint. A mailbox that goes back has something again
# that no sync may have given, so the next cursor does not count.
_NOTE = NamedStatement("""
    UPDATE mailboxes SET
        taken_seq = least(note.at_most, greatest(taken_seq, CASE
            WHEN note.is_live THEN NULL
            WHEN note.taken IS NOT NULL THEN least(note.taken, newest_seq)
            WHEN live_since <= settled_at THEN least(settled_seq, newest_seq) END)),
        given_seq = CASE WHEN note.at_most < taken_seq THEN 0 ELSE given_seq END,
        sessions = note.sessions,
        shard = delivery_shards.shard,
        live_since = CASE WHEN note.is_new THEN :now WHEN note.is_live THEN coalesce(live_since, :now) END
    FROM delivery_shards, (SELECT coalesce(max(seq), 0) AS newest_seq FROM messages) AS log,
        json_to_recordset(CAST(:notes AS json)) AS note (
            user_id text, sessions text[], is_live boolean, is_new boolean, taken numeric, at_most numeric)
    WHERE mailboxes.user_id = note.user_id AND delivery_shards.shard = :shard""")

_LIVE = NamedStatement("""
    SELECT user_id, sessions FROM mailboxes
    WHERE sessions <> '{}' AND shard = :shard AND user_id > :after ORDER BY user_id LIMIT :limit""")

_STANDING = NamedStatement("""
    SELECT coalesce((SELECT taken_seq FROM mailboxes WHERE user_id = :user_id), start_seq) AS taken,
           coalesce((SELECT max(seq) FROM messages), 0) AS newest
    FROM delivery""")

# A device shows with the cursor of its next question that the page before has arrived. That page counts if it began at
# the mailbox or before, so that nothing lies between. `given_seq` is the cursor at the end of the newest such page. A
# device that began at `sync_from` lacks what the mailbox holds before that, and its cursors move nothing.
# DO UPDATE looks at the row as it is when it is locked: a note may have moved it meanwhile.
# A device that has nothing new asks again and again. Then no row passes WHERE, and nothing is written or locked.
_SYNCED = NamedStatement("""
    INSERT INTO mailboxes (user_id, taken_seq, given_seq, shard)
    SELECT CAST(:user_id AS text), start_seq, CAST(:next AS bigint), :shard
    FROM delivery LEFT JOIN mailboxes ON user_id = :user_id
    WHERE (user_id IS NULL AND :after <= start_seq AND :next > start_seq)
        OR (:after = given_seq AND :after > taken_seq)
        OR ((:after = given_seq OR :after <= taken_seq) AND :next > taken_seq AND :next <> given_seq)
    ON CONFLICT (user_id) DO UPDATE SET
        taken_seq = CASE WHEN :after = mailboxes.given_seq THEN greatest(mailboxes.taken_seq, :after)
                         ELSE mailboxes.taken_seq END,
        given_seq = CASE WHEN (:after = mailboxes.given_seq OR :after <= mailboxes.taken_seq)
                             AND :next > mailboxes.taken_seq THEN :next
                         ELSE mailboxes.given_seq END""")


class Standing(NamedTuple):
    """Where a mailbox stands, and the newest seq of the log; 0 if the log is empty."""

    taken: int
    newest: int


class Mailboxes:
    """The table of mailboxes, on a database connection."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def term(self, shard: int) -> int:
        """Return the shard's term. It stays what it is until the commit.

        Call it, or `begin_term`, before everything else: so all transactions lock in one order.
        """
        return int((await _TERM.row(self._connection, shard=shard))["term"])

    async def begin_term(self, shard: int) -> int:
        """Begin the next term of the shard, and return it."""
        return int((await _BEGIN_TERM.row(self._connection, shard=shard))["term"])

    async def take(self, shard: int, number: int) -> bool:
        """Note that the request `number` of the term is applied. Return False if that or a newer one was before."""
        return bool(await _TAKE.rows(self._connection, shard=shard, number=number))

    async def settle(self, shard: int, seq: int, at: int) -> None:
        """Note that the XMPP server had the shard's deliveries up to `seq` at `at`; only newer values count."""
        await _SETTLE.rows(self._connection, shard=shard, seq=seq, at=at)

    async def lock(self, shard: int, user_ids: Collection[str]) -> None:
        """Lock the rows of these people of a shard until the commit; people without a row get one."""
        await _LOCK.rows(self._connection, shard=shard, user_ids=list(user_ids))

    async def note(self, shard: int, notes: Sequence[MailboxNote], now: int) -> None:
        """Apply notes about different people, whose rows are locked, at the time `now` (epoch milliseconds)."""
        values = [
            {
                "user_id": note.user_id, "sessions": note.sessions, "taken": note.taken, "at_most": note.at_most,
                "is_live": bool(note.sessions) and not note.is_stale,
                "is_new": bool(note.sessions) and not note.is_stale and note.is_new,
            }
            for note in notes
        ]  # fmt: skip
        await _NOTE.rows(self._connection, shard=shard, notes=json.dumps(values), now=now)

    async def live(self, shard: int, after_user: str, limit: int) -> list[LivePerson]:
        """Return up to `limit` people of the shard with sessions, by user id, after `after_user`."""
        found = await _LIVE.rows(self._connection, shard=shard, after=after_user, limit=limit)
        return [LivePerson(user_id=user_id, sessions=sessions) for user_id, sessions in found]

    async def standing(self, user_id: str) -> Standing:
        """Return where the person's mailbox stands."""
        return Standing(*await _STANDING.row(self._connection, user_id=user_id))

    async def synced(self, user_id: str, after: int, following: int) -> None:
        """Note that a device has asked with the cursor `after` and is given the cursor `following`.

        The mailbox moves to `after` if a sync has given that cursor, and what lies before was given as well. It never
        moves back by it.
        """
        shard = delivery_shard(user_id)
        await _SYNCED.rows(self._connection, user_id=user_id, after=after, next=following, shard=shard)
