"""What /readyz names."""

from typing import Any

NOBODY = "http://127.0.0.1:1/"


async def test_it_is_not_ready_before_it_has_the_keys_of_tokens(world: Any, eventually: Any) -> None:
    async with world.running(jwks_url=NOBODY) as app:

        async def only_they_are_missing() -> None:
            checks = await app.state.health.check()
            assert checks.pop("token keys") == "there are no keys of tokens yet"
            assert set(checks.values()) == {"ok"}

        await eventually(only_they_are_missing)
