"""The settings of xmpp-bridge, besides those that every service has."""

from datetime import timedelta
from pathlib import Path
from typing import ClassVar

from pydantic import Field, HttpUrl, SecretStr
from tlim_runtime.settings import ServiceSettings
from tlim_runtime.throttle import Rate

from xmpp_bridge.token_settings import TokenSettings
from xmpp_bridge.translate import Accept


class Settings(ServiceSettings, TokenSettings):
    """Where the XMPP server is, who we are there, and how much is let in at a time."""

    service: ClassVar[str] = "xmpp-bridge"

    xmpp_domain: str = "im.itonglian.com"
    """The domain of all accounts."""
    xmpp_host: str = "127.0.0.1"
    """The host of the XMPP server."""
    xmpp_component_port: int = Field(ge=1, le=65_535)
    """Its port for components (XEP-0114)."""
    xmpp_client_port: int = Field(ge=1, le=65_535)
    """Its port for clients: passwords are checked there."""
    xmpp_ca_file: Path | None = None  # None: what the system trusts
    gateway_url: HttpUrl | None = None
    """Where the gateway is, such as `https://gateway:9090`: the end of its certificate is a metric then."""
    xmpp_timeout: timedelta = timedelta(
        seconds=15
    )  # longer than a publish's time-out (5 s), shorter than a consumer's ack_wait (30 s)
    accept: Accept = Accept.DIVERTED
    """`diverted`: the XMPP server hands messages over. `addressed`: clients address the component."""
    component_jid: str
    """The bridge's own name, such as `bridge.chat.example.org`."""
    component_secret: SecretStr
    """The secret of the component, as the XMPP server has it."""
    in_flight_limit: int = Field(default=1_000, ge=1)  # about 1 MB of messages, far below JetStream's 10,000

    messages_per_user: Rate = Field(default="3000/minute")  # more than a person writes; a program may reach it
    receipts_per_user: Rate = Field(default="30000/minute")  # receipts name many messages at once
    deliveries_per_user: Rate = Field(default="100000/minute")  # ten messages to groups of 10,000 people
    bytes_per_user: Rate = Field(default="50000000/minute")  # 50 messages of the largest kind, unpacked

    system_users: list[str] = Field(default=["system"])  # in whose names POST /v1/messages may send
    system_send_timeout: timedelta = timedelta(seconds=5)  # a healthy store answers in milliseconds

    token_lifetime: timedelta = timedelta(hours=1)
    """How long a token is good."""
    token_attempts_per_user: Rate = Field(default="10/minute")  # failures from each address; successes apart
    token_attempts_per_address: Rate = Field(default="60/minute")  # failures only: a whole office logs in at nine
    logins_at_once: int = Field(default=8, ge=1)
    """How many passwords are checked at a time."""
    login_timeout: timedelta = timedelta(seconds=10)
    """After this time without an answer of the XMPP server the login fails."""
    login_failure_delay: timedelta = timedelta(milliseconds=500)
    """How long a wrong password waits for its answer."""
