"""The settings that sign a token, without a web framework: commands that only sign start twice as fast."""

from pathlib import Path

from tlim_runtime.settings import EnvironmentSettings

_TLIM = "tlim"


class TokenSettings(EnvironmentSettings):
    """What is needed to sign a token."""

    token_key_file: Path
    """The PEM file of the keys that sign tokens: the first signs, all are published."""
    token_issuer: str = _TLIM
    token_audience: str = _TLIM
