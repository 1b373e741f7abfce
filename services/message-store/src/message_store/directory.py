"""The users directory, which session-api keeps, asked over NATS: who exists."""

from collections.abc import Collection
from datetime import timedelta

from pydantic import ValidationError
from tlim_protocol.events import UserMeet, UsersKnown
from tlim_protocol.subjects import Rpc
from tlim_runtime.broker import Broker
from tlim_runtime.outages import BrokerUnavailable

from message_store.errors import DirectoryUnavailable


class UserDirectory:
    """Asks session-api in one request per batch."""

    def __init__(self, broker: Broker, timeout: timedelta) -> None:
        self._broker = broker
        self._timeout = timeout

    async def known(self, *, seen: Collection[str], ask: Collection[str]) -> set[str]:
        """Note that `seen` exist, and return those of `ask` (normalised user ids) that do.

        Raises DirectoryUnavailable when no usable answer comes in time.
        """
        question = UserMeet(seen=sorted(seen), ask=sorted(ask)).to_bytes()
        try:
            answer = await self._broker.request(Rpc.USER_MEET, question, self._timeout.total_seconds())
            return set(UsersKnown.from_bytes(answer).known)
        except (BrokerUnavailable, ValidationError) as error:
            raise DirectoryUnavailable(str(error)) from error
