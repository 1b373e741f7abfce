"""What administrators did: each action with scope admin writes an entry, in the same transaction if it is ours."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from pydantic import JsonValue
from tlim_protocol.events import AuditAction

from session_api.audit_repository import AuditRepository
from session_api.clock import Clock, now_ms
from session_api.models import AuditEntry


@dataclass(frozen=True, slots=True)
class Admin:
    """The acting administrator: the subject of a token with scope admin, and the request id of logs and answer."""

    user_id: str
    request_id: str


class AuditService:
    """The audit log for rules and doors; an entry is committed together with the action that it describes."""

    def __init__(self, entries: AuditRepository, clock: Clock = now_ms) -> None:
        self._entries = entries
        self._clock = clock

    async def note(
        self,
        admin: Admin,
        action: AuditAction,
        target: str | None = None,
        detail: Mapping[str, JsonValue] = MappingProxyType({}),
    ) -> None:
        """Write down what an administrator has just done, to which target, and further details."""
        await self._entries.add(self._entry(admin, action, target, detail))

    async def note_each(self, admin: Admin, action: AuditAction, targets: Collection[str]) -> None:
        """Write down, for each of these users, what an administrator is about to do to them."""
        await self._entries.add_all([self._entry(admin, action, target, {}) for target in targets])

    def _entry(
        self, admin: Admin, action: AuditAction, target: str | None, detail: Mapping[str, JsonValue]
    ) -> AuditEntry:
        return AuditEntry(
            at=self._clock(),
            actor=admin.user_id,
            action=action,
            target=target,
            detail=dict(detail),
            request_id=admin.request_id,
        )

    async def newest(
        self, before: int | None, limit: int, actor: str | None, action: AuditAction | None
    ) -> Sequence[AuditEntry]:
        """Return up to `limit` entries, newest first, older than the entry `before`, of one actor or action only."""
        return await self._entries.newest(before, limit, actor, action)

    async def last_backup(self) -> int | None:
        """Return when the last backup was complete, in epoch milliseconds; None: never."""
        entries = await self._entries.newest(None, 1, None, AuditAction.BACKUP_MADE)
        return entries[0].at if entries else None
