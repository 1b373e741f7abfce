"""Reads over HTTP what each person sees at the end of a run."""

import asyncio

from tlim_client.failures import ClientError, RefusedError
from tlim_client.http import HttpClient
from tlim_client.xmpp import XmppClient
from tlim_protocol.errors import ErrorCode

from tests.torture.book import Reading
from tests.torture.items import conversation_read, item_read

AGAIN_S = 1.0


async def ask_patiently(client: XmppClient) -> str:
    """Return a token. A refusal can mean "not now"; whoever calls sets a time limit."""
    while True:
        try:
            return await client.fetch_token()
        except ClientError:
            await asyncio.sleep(AGAIN_S)


async def read_patiently(client: HttpClient, user_id: str) -> Reading:
    """Return what a person reads. "Try again" is an answer that is allowed; whoever calls sets a time limit."""
    while True:
        try:
            return await read_everything(client, user_id)
        except RefusedError as refusal:
            if refusal.code is not ErrorCode.UNAVAILABLE:
                raise
        await asyncio.sleep(AGAIN_S)


async def read_everything(client: HttpClient, user_id: str) -> Reading:
    """Return what a person reads: sync, the history of each conversation, and the unread counts."""
    synced, _ = await client.sync()
    listed = await client.conversations()
    reading = Reading([item_read(user_id, answer) for answer in synced])
    for one in listed:
        name = conversation_read(user_id, one["conversation"])
        history = await client.history(one["conversation"], after=0)
        reading.history[name] = [item_read(user_id, answer, name) for answer in history]
        reading.unread[name] = one["unread"]
    return reading
