"""NATS over TLS, with the variable that the page names for its authority."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from tlim_devstack import nats
from tlim_devstack.certificates import ensure_certificates
from tlim_devstack.processes import ServerProcess, dies_with_parent
from tlim_devstack.servers import nats_passwords
from tlim_devstack.waiting import free_port
from tlim_runtime.broker import Broker


@pytest.fixture
def authority(tmp_path: Path) -> tuple[Path, Path]:
    """The authority's certificate, and a certificate with its key for 127.0.0.1."""
    return ensure_certificates(tmp_path / "certificates", "server.example")


@pytest.fixture
def nats_with_tls(authority: tuple[Path, Path], tmp_path: Path) -> Iterator[tuple[int, str]]:
    """A NATS server that speaks TLS only: its port, and the password of `tests`."""
    passwords, port = nats_passwords(), free_port()
    config = nats.write_config(tmp_path / "nats", passwords)
    config.write_text(f'{config.read_text()}\ntls {{ cert_file: "{authority[1]}", key_file: "{authority[1]}" }}\n')
    process = ServerProcess(
        "NATS", dies_with_parent(nats.command(config, tmp_path / "data", port)), tmp_path / "nats.log"
    )
    process.wait_ready(lambda: nats.greets(port))
    yield port, passwords[nats.TEST_USER]
    process.stop()


async def test_nats_is_reached_over_tls(
    nats_with_tls: tuple[int, str], authority: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    port, password = nats_with_tls
    monkeypatch.setenv("SSL_CERT_FILE", str(authority[0]))
    broker = await Broker.connect(f"tls://127.0.0.1:{port}", nats.TEST_USER, password, name="test")
    await broker.ping()
    await broker.close()
