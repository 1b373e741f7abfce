import json
from datetime import timedelta
from enum import StrEnum
from typing import Annotated

import pytest
from pydantic import Field, HttpUrl, SecretStr
from tlim_runtime.settings import DatabaseSettings, ServiceSettings, load_settings


class Colour(StrEnum):
    RED = "red"


class Settings(DatabaseSettings, ServiceSettings):
    service = "sample"

    window: timedelta = timedelta(minutes=2)
    endpoint: HttpUrl
    key: SecretStr
    sizes: list[int]
    colour: Colour
    limit: Annotated[int, Field(ge=1)]
    note: str | None


REQUIRED = {
    "TLIM_PORT": "8080",
    "TLIM_NATS_URL": "nats://127.0.0.1:4222",
    "TLIM_NATS_USER": "sample",
    "TLIM_NATS_PASSWORD": "secret",
    "TLIM_JWKS_URL": "http://127.0.0.1/jwks.json",
    "TLIM_DATABASE_URL": "postgresql+asyncpg://sample:secret@127.0.0.1/sample",
    "TLIM_ENDPOINT": "http://127.0.0.1",
    "TLIM_KEY": "secret",
    "TLIM_SIZES": "[1, 2]",
    "TLIM_COLOUR": "red",
    "TLIM_LIMIT": "5",
    "TLIM_NOTE": "hello",
}


def test_settings_come_from_the_environment_and_hide_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {**REQUIRED, "TLIM_CORS_ORIGINS": '["https://a"]', "TLIM_WINDOW": "PT5M"}.items():
        monkeypatch.setenv(name, value)
    settings = load_settings(Settings)
    assert settings.port == 8080
    assert settings.cors_origins == ["https://a"]
    assert settings.window == timedelta(minutes=5)
    assert not settings.trust_request_user
    assert "secret" not in repr(settings)


def test_a_missing_variable_is_one_line_that_names_it_and_exit_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in REQUIRED.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("TLIM_NATS_URL")
    monkeypatch.setenv("TLIM_PORT", "seventy")
    monkeypatch.setenv("TLIM_KEY", "secret")
    with pytest.raises(SystemExit) as ended:
        load_settings(Settings)
    assert ended.value.code == 1
    lines = capsys.readouterr().err.splitlines()
    assert sorted(line.split(":")[0] for line in lines) == ["TLIM_NATS_URL", "TLIM_PORT"]


def test_placeholders_need_no_environment() -> None:
    settings = Settings.placeholder()
    assert settings.nats_url == "unset"
    assert settings.window == timedelta(minutes=2)
    assert settings.sizes == []
    assert settings.colour is Colour.RED
    assert settings.note is None
    assert isinstance(settings.key, SecretStr)
    assert isinstance(settings.endpoint, HttpUrl)
    assert Settings.service == "sample"


def test_external_issuers_are_a_json_list(monkeypatch: pytest.MonkeyPatch) -> None:
    issuer = {"issuer": "https://id.example.org", "jwks_url": "https://id.example.org/keys", "audience": "chat"}
    for name, value in {**REQUIRED, "TLIM_EXTERNAL_ISSUERS": json.dumps([issuer])}.items():
        monkeypatch.setenv(name, value)
    (external,) = load_settings(Settings).external_issuers
    assert (external.issuer, external.user_claim, external.admin_scope) == (issuer["issuer"], "sub", None)
    assert external.algorithms == ["RS256"]


@pytest.mark.parametrize(
    "changes",
    [
        {"algorithms": ["HS256"]},
        {"algorithms": ["none"]},
        {"algorithms": []},
        {"jwks_url": "file:///etc/passwd"},
        {"audience": ""},
        {"admin_scope": ""},
        {"admin_scope": "two words"},
        {"issuer": "tlim"},
        {"user_clam": "email"},
    ],
    ids=str,
)
def test_an_external_issuer_that_makes_no_sense_stops_the_start(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], changes: dict[str, object]
) -> None:
    issuer = {"issuer": "https://id.example.org", "jwks_url": "https://id.example.org/keys", "audience": "chat"}
    for name, value in {**REQUIRED, "TLIM_EXTERNAL_ISSUERS": json.dumps([issuer | changes])}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit):
        load_settings(Settings)
    assert "external_issuers" in capsys.readouterr().err.lower()
