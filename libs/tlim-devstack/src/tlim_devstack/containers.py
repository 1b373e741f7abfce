"""The servers of tlim_devstack.servers as containers, for machines where a Docker socket answers."""

import os
import secrets
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from testcontainers.core.container import DockerContainer

from tlim_devstack import nats, postgres, s3
from tlim_devstack.failures import StackError
from tlim_devstack.servers import (
    UNSAFE_BUT_FAST,
    NatsServer,
    PostgresServer,
    S3Server,
    nats_passwords,
    role_passwords,
    test_keys,
)
from tlim_devstack.waiting import wait_until

NATS_IMAGE = "docker.io/library/nats:2.15-alpine"
POSTGRES_IMAGE = "docker.io/library/postgres:18-bookworm"
S3_IMAGE = "docker.io/chrislusf/seaweedfs:4.48"


def wanted() -> bool:
    """Whether tests use containers: TLIM_TEST_CONTAINERS=always|never, otherwise whether a Docker socket answers."""
    choice = os.environ.get("TLIM_TEST_CONTAINERS", "auto")
    if choice not in ("auto", "always", "never"):
        raise StackError(f"TLIM_TEST_CONTAINERS is {choice!r}; it can be auto, always or never")
    return choice == "always" or (choice == "auto" and _docker_answers())


def _docker_answers() -> bool:
    where = urlsplit(os.environ.get("DOCKER_HOST") or "unix:///var/run/docker.sock")
    family = socket.AF_UNIX if where.scheme == "unix" else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as connection:
            connection.settimeout(3)
            connection.connect(where.path if where.scheme == "unix" else (where.hostname, where.port or 2375))
            connection.sendall(b"GET /_ping HTTP/1.0\r\nHost: docker\r\n\r\n")
            return connection.recv(12).startswith(b"HTTP/")
    except OSError:
        return False


@contextmanager
def running_nats(directory: Path) -> Iterator[NatsServer]:
    """Run the NATS image until the block ends; `directory` takes the generated configuration."""
    passwords = nats_passwords()
    config = nats.write_config(directory, passwords)
    container = DockerContainer(NATS_IMAGE).with_exposed_ports(4222)
    for path in (config, config.with_name("users.conf")):
        container.with_copy_into_container(path, f"/etc/tlim/{path.name}", 0o644)
    container.with_command("-c /etc/tlim/nats.conf -sd /tmp/nats")
    with container:
        host, port = container.get_container_host_ip(), container.get_exposed_port(4222)
        wait_until(lambda: nats.greets(port, host), "the NATS container")
        yield NatsServer(f"nats://{host}:{port}", passwords)


@contextmanager
def running_postgres(directory: Path) -> Iterator[PostgresServer]:
    """Run the PostgreSQL image until the block ends; `directory` is not needed."""
    del directory
    password = secrets.token_hex(16)
    container = DockerContainer(POSTGRES_IMAGE).with_exposed_ports(5432).with_env("POSTGRES_PASSWORD", password)
    container.with_command(["postgres", *(word for setting in UNSAFE_BUT_FAST for word in ("-c", setting))])
    with container:
        host, port = container.get_container_host_ip(), container.get_exposed_port(5432)
        admin = postgres.Login(host, port, postgres.SUPERUSER, password)
        wait_until(lambda: postgres.answers(admin), "the PostgreSQL container")
        passwords = role_passwords()
        postgres.create_roles(admin, passwords)
        yield PostgresServer(admin, passwords)


@contextmanager
def running_s3(directory: Path) -> Iterator[S3Server]:
    """Run the SeaweedFS image until the block ends; `directory` takes the generated keys."""
    directory.mkdir(parents=True, exist_ok=True)
    admin, tests = test_keys()
    identities = s3.write_identities(directory, [admin, tests])
    container = DockerContainer(S3_IMAGE).with_exposed_ports(8333).with_envs(**s3.ENVIRONMENT)
    container.with_copy_into_container(identities, "/etc/tlim/identities.json", 0o644)
    container.with_command(
        "server -dir=/data -filer -s3 -s3.port=8333 -s3.iam=false -s3.config=/etc/tlim/identities.json "
        "-s3.allowedOrigins= -s3.port.iceberg=0 -s3.port.lance=0 -volume.max=0 -master.volumeSizeLimitMB=1024 "
        "-master.electionTimeout=1s -master.telemetry=false -ip=127.0.0.1 -ip.bind=0.0.0.0"
    )
    with container:
        endpoint = f"http://{container.get_container_host_ip()}:{container.get_exposed_port(8333)}"
        wait_until(lambda: s3.takes_writes(endpoint, admin, "ready"), "the S3 container")
        yield S3Server(endpoint, admin, tests)
