"""A backup is taken while people write, and restored into an empty system: everything is there, and goes on."""

import asyncio
import json
import secrets
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path

import pytest
from pydantic import SecretStr
from tlim_admin.backup.accounts import Accounts
from tlim_admin.databases import prepare
from tlim_client.compose import file_message
from tlim_client.inbox import Delivered
from tlim_devstack import preparation
from tlim_devstack.ports import Ports
from tlim_devstack.stack import Stack
from tlim_devstack.xmpp_servers import DOMAIN
from tlim_protocol.registry import MsgType

from tests.e2e.clients.flow import Flow
from tests.e2e.clients.operator import Operator
from tests.e2e.clients.people import People, Person, ids_in_history
from tests.e2e.conftest import XMPP

pytestmark = pytest.mark.skipif(XMPP != "ejabberd", reason="only ejabberd gives a backup the accounts")


class RestoredStack(Stack):
    """A new system, with other passwords, into which a backup is restored before its services start."""

    def __init__(self, home: Path, backup: Path) -> None:
        super().__init__(home, Ports.random())
        self._backup = backup
        self.compared: dict[str, object] = {}

    def _record(self) -> None:
        for name in ("postgres", "s3", self.xmpp_name):
            self.wait_ready(name)
        preparation.prepare_bucket(self.services)
        url = SecretStr(self.postgres_admin.url().replace("+asyncpg", ""))
        asyncio.run(prepare(url, self.credentials.postgres_roles))
        operator = Operator(self.home, self)
        operator.run("restore", str(self._backup))
        self.compared = json.loads(operator.run("verify", "--against", str(self._backup), "--json"))
        super()._record()


@contextmanager
def restored(home: Path, backup: Path) -> Iterator[RestoredStack]:
    stack = RestoredStack(home, backup)
    stack.start()
    try:
        yield stack
    finally:
        stack.stop()


@pytest.mark.proves("promise kept")
async def test_a_backup_taken_while_people_write_is_restored_into_an_empty_system_which_goes_on(
    people: People, stack: Stack, tmp_path: Path
) -> None:
    alice, bob = await people("alice", "bob")
    phone, client = await alice.device(), await alice.http()
    source = tmp_path / "plan.txt"
    source.write_text("the plan")
    file_id, deleted_id = [await client.upload(source) for _ in range(2)]
    group = await client.add_session([bob.user_id])
    for one in (file_id, deleted_id):
        await phone.send_until_stored(file_message(alice.user_id, bob.user_id, MsgType.FILE, one))
    assert (await client.ask("DELETE", f"/v1/files/{deleted_id}")).status_code == 204
    assert (await asyncio.to_thread(Operator(tmp_path, stack).run, "verify")).endswith("all of it agrees\n")
    before = await ids_in_history(await bob.http(), alice)
    operator, backup = Operator(tmp_path, stack), tmp_path / "backup"

    def back_up() -> None:
        operator.run("backup", str(backup))

    await Flow(alice, phone, bob).disturbed_by(back_up)
    after = await ids_in_history(await bob.http(), alice)
    entries = (await people.admin.call("GET", "/v1/audit"))["items"]
    assert entries[0]["action"] == "backup.made"

    with restored(tmp_path / "restored", backup) as again:
        assert again.compared["findings"] == []
        async with AsyncExitStack() as opened:
            alice, bob = (Person(one.user_id, one.password, again, opened) for one in (alice, bob))
            reader = await bob.http()
            kept = await ids_in_history(reader, alice)
            assert before == kept[: len(before)]
            assert kept == after[: len(kept)]
            assert (await reader.download(file_id, tmp_path / "again.txt")).path.read_text() == "the plan"
            assert [one["session_id"] for one in await reader.sessions()] == [group["session_id"]]
            phone, receiver = await alice.device(), await bob.device()
            marker = alice.text_to(bob, "after the restore")
            await phone.send_until_stored(marker)
            await receiver.expect(Delivered, lambda event: event.envelope == marker)
        agreed = await asyncio.to_thread(Operator(again.home, again).run, "verify", "--bytes")
        assert agreed.endswith("all of it agrees\n")


def test_a_backup_is_whole_or_refused_and_never_put_into_a_system_that_has_data(stack: Stack, tmp_path: Path) -> None:
    operator, backup = Operator(tmp_path, stack), tmp_path / "backup"

    assert "SignatureDoesNotMatch" in operator.refused("backup", str(backup), TLIM_S3_SECRET_KEY=secrets.token_hex(24))
    assert not [path for path in tmp_path.iterdir() if path.name.startswith("backup")]
    operator.run("backup", str(backup))
    assert "is there already" in operator.refused("backup", str(backup))
    stack.enter_in_directory({f"later-{secrets.token_hex(4)}": "came after the backup"})
    assert "the database session_api is not empty" in operator.refused("restore", str(backup))
    assert operator.run("verify", "--backup", str(backup)).startswith("whole")

    dump = backup / "session_api.dump"
    with dump.open("r+b") as file:
        file.seek(100)
        byte = file.read(1)
        file.seek(100)
        file.write(bytes([byte[0] ^ 1]))
    for command in (("verify", "--backup"), ("restore",)):
        assert "session_api.dump of the backup is damaged" in operator.refused(*command, str(backup))
    dump.unlink()
    assert "session_api.dump of the backup cannot be read" in operator.refused("restore", str(backup))
    (backup / "manifest.json").unlink()
    assert "is no backup" in operator.refused("restore", str(backup))


def test_accounts_are_restored_alone_when_only_the_xmpp_server_is_a_new_one(stack: Stack, tmp_path: Path) -> None:
    operator, backup, user = Operator(tmp_path, stack), tmp_path / "backup", f"moved-{secrets.token_hex(4)}"
    assert stack.xmpp.accounts_api is not None
    accounts = Accounts(stack.xmpp.accounts_api, stack.credentials.xmpp_api, DOMAIN)
    stack.register_user(user)
    before = list(accounts.all())
    operator.run("backup", str(backup))  # which is noted in the audit
    accounts.remove(user)

    assert "the database session_api is not empty" in operator.refused("restore", str(backup))
    assert operator.run("restore", "--accounts", str(backup)) == f"restored: {len(before):,} accounts\n"

    assert list(accounts.all()) == before
    stack.register_user(f"later-{user}")
    assert "it has accounts such as later-" in operator.refused("restore", "--accounts", str(backup))
