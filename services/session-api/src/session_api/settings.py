"""What session-api is told by its environment."""

from typing import ClassVar

from pydantic import Field
from tlim_runtime.settings import DatabaseSettings, ServiceSettings


class Settings(DatabaseSettings, ServiceSettings):
    """The settings of this service: those every service has, and the limits of its own rules."""

    service: ClassVar[str] = "session-api"

    session_max_subscribers: int = Field(default=10_000, ge=1)
    """Largest group. Every change sends the whole list as one event: 10,000 ids of 64 bytes twice are 1.4 MB, and the
    broker takes 8 MB."""
