"""The commands `replay`, `rebuild` and `rotate-keys`."""

import asyncio
from pathlib import Path
from typing import Annotated

import nats.errors
import typer
from tlim_runtime.provision import ProvisionSettings, provision_server
from tlim_runtime.settings import load_settings

from tlim_admin.backup.commands import IN_CONTAINERS, Secrets, logins
from tlim_admin.backup.manifest import BackupError
from tlim_admin.backup.tables import OwnerLogin, connected
from tlim_admin.failures import one_line
from tlim_admin.printed import AsJson, say
from tlim_admin.progress import Steps, steps
from tlim_admin.settings import PostgresSettings, ReplaySettings
from tlim_admin.upkeep import log
from tlim_admin.upkeep.token_keys import Step, rotate
from tlim_admin.upkeep.waiting import indexed, ready

STORE = "message_store"


def replay_command(as_json: AsJson = False) -> None:
    """After JetStream was lost: make streams and consumers anew, and wait until the services go on.

    message-store publishes again from PostgreSQL whatever may not have been delivered. The services are those of
    TLIM_MESSAGE_STORE and TLIM_XMPP_BRIDGE.
    """
    settings = load_settings(ReplaySettings)
    with one_line(), steps() as shown:
        asyncio.run(replay(settings, shown))
    ready_again = [*settings.message_store.split(), *settings.xmpp_bridge.split()]
    say({"ready": ready_again}, "streams and consumers are there, and the log is published", as_json=as_json)


async def replay(settings: ReplaySettings, shown: Steps) -> None:
    """Return when all instances are ready. Raises BackupError."""
    with shown.step("making streams and consumers"):
        await _provision(settings)
    with shown.step("publishing the log"):
        await ready([*settings.message_store.split(), *settings.xmpp_bridge.split()])


async def _provision(settings: ProvisionSettings) -> None:
    try:
        await provision_server(settings)
    except (nats.errors.Error, OSError, TimeoutError) as error:
        raise BackupError(f"NATS: {error or type(error).__name__}") from error


def rebuild_command(secrets: Secrets = IN_CONTAINERS, as_json: AsJson = False) -> None:
    """Make the index of search anew. Meanwhile search finds only what is indexed again, from the oldest on."""
    settings = load_settings(PostgresSettings)
    with one_line(), steps() as shown:
        indexed_seq = asyncio.run(rebuild(logins(settings, secrets)[STORE], shown))
    say({"indexed_seq": indexed_seq}, "search finds everything again", as_json=as_json)


async def rebuild(login: OwnerLogin, shown: Steps) -> int:
    """Return the newest seq when message-store has indexed everything that was in the log. Raises BackupError."""
    async with connected(login) as connection:
        await log.empty_index(connection)
        goal = (await log.progress(connection)).newest
        with shown.bar("indexing the log") as bar:
            await indexed(connection, goal, bar)
    return goal


def rotate_keys_command(
    step: Annotated[Step, typer.Argument(help="add, then use, then forget; restart xmpp-bridge after each")],
    file: Annotated[Path, typer.Argument(help="the file of the keys that sign tokens")],
    as_json: AsJson = False,
) -> None:
    """Replace the key that signs tokens, in three steps, so that no token is refused meanwhile."""
    with one_line():
        count = rotate(file, step)
    sentence = f"keys in {file}: {count}; restart xmpp-bridge now"
    say({"file": str(file), "keys": count}, sentence, as_json=as_json)
