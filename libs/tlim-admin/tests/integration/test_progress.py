"""Every work of a command that grows with a system is a step that a terminal shows."""

from pathlib import Path
from typing import Any

import pytest
from tlim_admin.backup import verify
from tlim_admin.backup.accounts import Account
from tlim_admin.backup.manifest import BackupError
from tlim_admin.backup.restore import restore, restore_accounts
from tlim_admin.backup.take import note, take
from tlim_admin.people.erase import plan
from tlim_admin.people.export import Stores, export
from tlim_admin.retention.commands import Kept, retain

ALICE = "INSERT INTO users VALUES ('alice', 'Alice', true, 1, 1)"


class NoObjects:
    """An empty bucket."""

    def sizes(self) -> dict[str, int]:
        return {}

    def digest(self, _: str) -> None: ...

    def put(self, *_: object) -> None: ...


class OneAccount:
    """The API of an XMPP server that has one account."""

    def all(self) -> list[Account]:
        return [Account("alice", "plain:")]

    def contacts(self, _: str) -> list[dict[str, object]]:
        return []

    def restore(self, _: Account) -> None: ...


BUCKET: Any = NoObjects()
ACCOUNTS: Any = OneAccount()


async def test_making_the_accounts_alone_shows_all_of_its_steps(data: Any, recorded: Any, tmp_path: Path) -> None:
    await take(tmp_path / "backup", data.logins, BUCKET, ACCOUNTS, recorded)
    recorded.names.clear()
    restore_accounts(tmp_path / "backup", ACCOUNTS, recorded)
    assert recorded.names == ["reading the backup", "looking at the target", "making accounts"]


async def test_a_backup_shows_all_of_its_steps(data: Any, recorded: Any, tmp_path: Path) -> None:
    made = await take(tmp_path / "backup", data.logins, BUCKET, ACCOUNTS, recorded)
    assert await note(data.logins["session_api"], made, recorded) == ""
    assert recorded.names == [
        "dumping message_store",
        "dumping session_api",
        "dumping file_api",
        "listing the objects",
        "copying objects",
        "reading the accounts",
        "reading the dumps once more",
        "bringing it to the disk",
        "entering it in the audit",
    ]


async def test_verify_and_restore_show_all_of_their_steps(data: Any, recorded: Any, tmp_path: Path) -> None:
    await data.sessions.execute(ALICE)
    system = (data.logins, BUCKET, ACCOUNTS, recorded)
    await take(tmp_path / "backup", *system)
    recorded.names.clear()

    verdict = await verify.against(tmp_path / "backup", *system)
    assert verdict.findings == []
    assert recorded.names[-3:] == ["listing the objects", "reading objects", "reading the accounts"]

    recorded.names.clear()
    await verify.stores(*system)
    assert recorded.names[-1] == "counting the accounts"

    recorded.names.clear()
    await restore(tmp_path / "backup", *system)
    assert recorded.names[:5] == [
        "reading the backup",
        "looking at the target",
        "listing the objects",
        "writing objects",
        "making accounts",
    ]


async def test_an_export_shows_all_of_its_steps(data: Any, recorded: Any, tmp_path: Path) -> None:
    await data.sessions.execute(ALICE)
    await export("alice", tmp_path / "alice.zip", Stores(data.logins, BUCKET, ACCOUNTS), recorded)
    shown = ["reading messages", "copying files", "reading the files once more", "packing the archive"]
    assert recorded.names == [*shown, "bringing it to the disk"]


async def test_what_would_be_erased_is_counted_in_a_step(data: Any, recorded: Any) -> None:
    with pytest.raises(BackupError, match="no user alice"):
        await plan("alice", data.logins, recorded)
    await data.sessions.execute(ALICE)
    await plan("alice", data.logins, recorded)
    assert recorded.names == ["counting messages and files"]


async def test_retention_shows_all_of_its_steps(data: Any, recorded: Any) -> None:
    await retain(Kept(1, 1), data.logins, recorded, rehearsal=False)
    shown = ["removing messages", "removing recalls", "removing files", "forgetting removed files"]
    assert recorded.names == shown
