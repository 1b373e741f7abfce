"""Another system that writes to people over HTTP (`POST /v1/messages`), and sends again until it is told `stored`."""

import asyncio
import random
import uuid
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from tlim_client.failures import NotReachableError, RefusedError
from tlim_client.http import HttpClient
from tlim_protocol.errors import ErrorCode
from tlim_protocol.registry import MsgType

from tests.torture.book import Item, Kind, Sent, between
from tests.torture.crowd import World

NAME = "system"
PAUSE_S = 2.0

TOKEN_MESSAGES = 500
"""A token is good for an hour. So many messages take less."""


@dataclass
class OtherSystem:
    """Writes to one person after another, as the seed says."""

    world: World
    people: Sequence[str]
    dice: random.Random

    async def live(self, over: asyncio.Event) -> None:
        """Write until `over` is set. The last message may stay without an answer."""
        stack, count = self.world.system.stack, 0
        async with HttpClient(stack.addresses.gateway, timeout=20) as http:
            while not over.is_set():
                if count % TOKEN_MESSAGES == 0:
                    http.token = await asyncio.to_thread(stack.admin_token)
                count += 1
                await self._write(http, self.dice.choice(self.people), f"system {count}", over)
                with suppress(TimeoutError):
                    async with asyncio.timeout(PAUSE_S):
                        await over.wait()

    async def _write(self, http: HttpClient, receiver: str, text: str, over: asyncio.Event) -> None:
        msg_id = str(uuid.UUID(int=self.dice.getrandbits(128)))
        message = {"from": NAME, "to": receiver, "msg_type": MsgType.TEXT, "msg_id": msg_id, "body": [{"text": text}]}
        item = Item(msg_id, NAME, Kind.TEXT, between(NAME, receiver), None, text)
        one = self.world.book.sent[msg_id] = Sent(item, frozenset({receiver}))
        while not over.is_set():
            try:
                answer = await http.call("POST", "/v1/messages", json=message)
            except NotReachableError:
                await asyncio.sleep(1)
            except RefusedError as refusal:
                if refusal.code is not ErrorCode.UNAVAILABLE:
                    self.world.book.wrong.append(f"{NAME}: {msg_id} was refused: {refusal}")
                    return
                await asyncio.sleep(1)
            else:
                one.seqs.append(answer["seq"])
                one.stored_at = self.world.now()
                return
