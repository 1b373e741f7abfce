import json
from collections.abc import Callable
from datetime import timedelta
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import pytest
from pydantic import Field, HttpUrl, SecretStr
from sqlalchemy import make_url
from tlim_runtime.secret_values import problem_of
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


PASSWORD = "b7Tq-a91c"
REQUIRED = {
    "TLIM_PORT": "8080",
    "TLIM_NATS_URL": "nats://127.0.0.1:4222",
    "TLIM_NATS_USER": "sample",
    "TLIM_NATS_PASSWORD": PASSWORD,
    "TLIM_JWKS_URL": "http://127.0.0.1/jwks.json",
    "TLIM_DATABASE_URL": f"postgresql+asyncpg://sample:{PASSWORD}@127.0.0.1/sample",
    "TLIM_ENDPOINT": "http://127.0.0.1",
    "TLIM_KEY": PASSWORD,
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
    assert PASSWORD not in repr(settings)


def test_a_missing_variable_is_one_line_that_names_it_and_exit_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in REQUIRED.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("TLIM_NATS_URL")
    monkeypatch.setenv("TLIM_PORT", "seventy")
    with pytest.raises(SystemExit) as ended:
        load_settings(Settings)
    assert ended.value.code == 1
    lines = capsys.readouterr().err.splitlines()
    assert sorted(line.split(":")[0] for line in lines) == ["TLIM_NATS_URL", "TLIM_PORT"]


Lines = Callable[..., list[str]]


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Lines:
    """Return a function: changes of REQUIRED (None: not set) → what the failed start says."""

    def start(**changes: str | None) -> list[str]:
        for name, value in {**REQUIRED, **changes}.items():
            if value is None:
                monkeypatch.delenv(name, raising=False)
            else:
                monkeypatch.setenv(name, value)
        with pytest.raises(SystemExit) as ended:
            load_settings(Settings)
        assert ended.value.code == 1
        said = capsys.readouterr().err
        assert PASSWORD not in said
        return said.splitlines()

    return start


def test_a_mistyped_variable_stops_the_start_and_the_line_names_the_nearest(lines: Lines) -> None:
    assert lines(TLIM_NATS_PASWORD="x1") == ["TLIM_NATS_PASWORD: unknown, did you mean TLIM_NATS_PASSWORD?"]
    assert lines(TLIM_NATS_PASWORD=None, tlim_recal_window="PT1H") == [
        "TLIM_RECAL_WINDOW: unknown, did you mean TLIM_RECALL_WINDOW?"
    ]
    assert lines(tlim_recal_window=None, TLIM_Q="1") == ["TLIM_Q: unknown"]


def test_variables_of_other_parts_and_of_kubernetes_stop_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    others = {
        "TLIM_PORT_GATEWAY": "9090",
        "TLIM_HOME": "/x",
        "TLIM_PROFILE": "alice",
        "TLIM_SWEEP_INTERVAL": "PT1H",
        "TLIM_E2E_XMPP": "prosody",
        "TLIM_FILE_API_SERVICE_HOST": "10.0.0.1",
        "TLIM_FILE_API_SERVICE_PORT": "80",
        "TLIM_FILE_API_PORT_80_TCP_ADDR": "10.0.0.1",
        "TLIM_FILE_API_PORT": "tcp://10.0.0.1:80",
    }
    for name, value in {**REQUIRED, **others}.items():
        monkeypatch.setenv(name, value)
    assert load_settings(Settings).port == 8080


@pytest.mark.parametrize(
    "value",
    [
        *("changeme", "Change-Me!", "unset", "secret123", "<password>", "${PASSWORD}", "…", "xxxx"),
        *("change-me-change-me-change-me-change-me", "yourpassword-yourpassword", "Admin1_Secret2"),
    ],
)
def test_a_secret_of_an_example_stops_the_start(lines: Lines, value: str) -> None:
    url = f"postgresql+asyncpg://sample:{value}@127.0.0.1/sample"
    found = lines(TLIM_KEY=value, TLIM_DATABASE_URL=url)
    assert [line.split(" is an example")[0] for line in found] == ["TLIM_DATABASE_URL:", "TLIM_KEY:"]


@pytest.mark.parametrize("value", ["password-of-a-mouse", "12test", "0af7" * 12])
def test_a_secret_with_more_than_words_of_examples_is_taken(value: str) -> None:
    assert problem_of(value) is None


def test_an_empty_secret_stops_the_start(lines: Lines) -> None:
    assert lines(TLIM_KEY="") == ["TLIM_KEY: is empty"]
    url = "postgresql+asyncpg://sample@127.0.0.1/sample"
    assert lines(TLIM_KEY=PASSWORD, TLIM_DATABASE_URL=url) == ["TLIM_DATABASE_URL: has no password"]


def test_a_list_that_is_not_json_is_one_line(lines: Lines) -> None:
    assert lines(TLIM_CORS_ORIGINS="https://a") == ["TLIM_CORS_ORIGINS: must be JSON"]


def test_secrets_come_from_files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("p@ss/ wörd\n")
    changes = {
        "TLIM_KEY_FILE": str(file),
        "TLIM_DATABASE_PASSWORD_FILE": str(file),
        "TLIM_DATABASE_URL": "postgresql://sample@db:5432/sample?sslmode=verify-full",
    }
    for name, value in {**REQUIRED, **changes}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("TLIM_KEY")
    settings = load_settings(Settings)
    assert settings.key.get_secret_value() == "p@ss/ wörd"
    url = make_url(settings.database_url.get_secret_value())
    assert (url.drivername, url.password, url.query) == ("postgresql+asyncpg", "p@ss/ wörd", {"ssl": "verify-full"})


def test_a_file_that_gives_no_secret_is_one_line_that_names_the_variable(lines: Lines, tmp_path: Path) -> None:
    good, empty, large, binary = (tmp_path / name for name in ("good", "empty", "large", "binary"))
    good.write_text(PASSWORD)
    empty.write_text("\n")
    large.write_text(PASSWORD * 10_000)
    binary.write_bytes(b"\xff" + PASSWORD.encode())
    unusable = {
        tmp_path / "none": "cannot be read: No such file or directory",
        tmp_path: "cannot be read: Is a directory",
        empty: "is empty",
        large: "has more than 65536 bytes",
        binary: "is not UTF-8",
    }
    for path, words in unusable.items():
        assert lines(TLIM_KEY=None, TLIM_KEY_FILE=str(path)) == [f"TLIM_KEY_FILE: {path} {words}"]
    assert lines(TLIM_KEY=PASSWORD, TLIM_KEY_FILE=str(good)) == ["TLIM_KEY: set it or TLIM_KEY_FILE, not both"]
    password = {"TLIM_KEY_FILE": None, "TLIM_DATABASE_PASSWORD_FILE": str(good)}
    (line,) = lines(**password)
    assert line.startswith("TLIM_DATABASE_URL: ")
    assert "TLIM_DATABASE_PASSWORD is another" in line


@pytest.mark.parametrize("url", ["mysql://a:b@c/d", "sample", "postgresql+asyncpg://127.0.0.1/sample"])
def test_a_database_url_that_cannot_be_one_is_one_line(lines: Lines, url: str) -> None:
    (line,) = lines(TLIM_DATABASE_URL=url)
    assert line.startswith("TLIM_DATABASE_URL: ")
    assert "postgresql+asyncpg://role:password@host:port/name" in line


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
