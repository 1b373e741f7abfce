"""Database URLs for asyncpg itself. Commands read them without the libraries of a service, which load for a second."""

import re


def driver_url(url: str) -> str:
    """Return a database URL as asyncpg reads it. The option `ssl` of SQLAlchemy is called `sslmode` there."""
    return re.sub(r"(?<=[?&])ssl=", "sslmode=", url.replace("postgresql+asyncpg://", "postgresql://", 1))
