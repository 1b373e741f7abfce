"""docs/operations.md, Keep a cluster: what it tells an operator to change and to type fits what the overlays apply."""

import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import typer
import yaml
from tlim_admin import secret_files
from tlim_admin.__main__ import app
from tlim_admin.databases import XMPP, roles
from tlim_protocol.streams import PERMISSIONS
from tlim_runtime.settings import DatabaseLogin

from tests.deploy.images import ROOT
from tests.deploy.pages import section
from tests.deploy.programs import program
from tests.deploy.rendering import DEPLOY, Resource, named
from tests.deploy.told import SERVICES, assert_all_is_read

README = DEPLOY / "k8s/README.md"
KEEP = section(ROOT / "docs/operations.md", "Keep a cluster")
CLUSTER = section(README, "From one ejabberd to a cluster")
COMMANDS = typer.main.get_command(app).commands  # type: ignore[attr-defined]
JOBS = [
    made
    for text in (README.read_text(encoding="utf-8"), KEEP)
    for made in re.findall(r"create job (\S+) --from=cronjob/admin --dry-run=client -o json \|\s+sed '([^']+)'", text)
]
"""The jobs that the pages make from the CronJob: name and what sed does."""


def part(name: str) -> str:
    """Return what the page says behind **Name.**, up to the next such name."""
    (text,) = re.findall(rf"^\*\*{name}\b(.*?)(?=^\*\*[A-Z]|\Z)", KEEP, re.MULTILINE | re.DOTALL)
    return str(text)


def without_services(_overlay: Path, kustomization: Resource) -> None:
    """Change what the first step of a restore says."""
    (gone,) = re.findall(r"Take `([^`]+)` out of `resources`", part("Restore"))
    kustomization["resources"].remove(gone)
    stop_services(part("Restore"), kustomization)


def stop_services(text: str, kustomization: Resource) -> None:
    ((first, others),) = re.findall(r"`replicas: \[([^]]+)\]`, and\s+the same for ([\w ,\n-]+)\.", text)
    stopped = yaml.safe_load(first)
    names = [stopped["name"], *re.split(r",\s+|\s+and\s+", others)]
    kustomization["replicas"] = [{**stopped, "name": name} for name in names]


@pytest.mark.parametrize(
    ("overlay", "left"), [("local", {"databases-dev", "bucket-dev"}), ("production", {"migrate-ejabberd-dev"})]
)
def test_a_restore_finds_no_service_and_no_tables(
    render: Callable[..., list[Resource]], overlay: str, left: set[str]
) -> None:
    resources = render(overlay, (), without_services)

    running = {name for name, one in named(resources, "Deployment").items() if one["spec"]["replicas"]}
    assert running == {"gateway"}
    assert named(resources, "Job").keys() == left


def test_one_ejabberd_becomes_a_cluster_while_no_service_runs(render: Callable[..., list[Resource]]) -> None:
    deployments = named(render("local", (), lambda _, one: stop_services(CLUSTER, one)), "Deployment")
    assert {name for name, one in deployments.items() if one["spec"]["replicas"]} == {"gateway"}


@pytest.mark.parametrize("text", [part("Restore"), CLUSTER])
def test_jobs_that_have_run_are_deleted_and_pods_of_all_services_awaited(text: str) -> None:
    assert text.index("wait pod --for=delete") < text.index("delete jobs --all") < text.index("kubectl apply -k")
    (awaited,) = re.findall(r"-l 'app.kubernetes.io/name in \(([^)]+)\)'\n", text.partition("delete jobs")[0])
    assert set(awaited.split(", ")) == set(SERVICES)


def test_a_restore_deletes_the_claims_of_servers_and_no_backups(render: Callable[..., list[Resource]]) -> None:
    resources = render("local", ("backup-volume",))
    (chosen,) = re.findall(r"delete pvc -l 'app.kubernetes.io/name in \(([^)]+)\)'", part("Restore"))
    keeping = {one["spec"]["selector"]["matchLabels"]["app.kubernetes.io/name"]
               for one in named(resources, "StatefulSet").values()}  # fmt: skip
    assert set(chosen.split(", ")) == keeping  # Kubernetes gives their claims these labels
    (backups,) = named(resources, "PersistentVolumeClaim").values()
    assert "app.kubernetes.io/name" not in backups["metadata"].get("labels", {})


def test_every_secret_has_a_row() -> None:
    variants = {"postgres-ROLE": [f"postgres-{role}" for role in (*roles(), XMPP)],
                "nats-SERVICE": [f"nats-{user}" for user in PERMISSIONS if user != "provision"]}  # fmt: skip
    firsts = re.findall(r"^\| (`[^|]+)\|", part("Rotate"), re.MULTILINE)
    in_rows = [name for first in firsts for name in re.findall(r"`([^`]+)`", first)]
    has_row = {one for name in in_rows for one in variants.get(name, [name])}
    made = [*secret_files.random_names(), secret_files.XMPP_DATABASE, secret_files.TOKEN_KEY]
    assert has_row == {*made, secret_files.CERTIFICATE, secret_files.AUTHORITY}


@pytest.mark.parametrize(("overlay", "files"), [("production", 2), ("local", 1)])
def test_nats_alone_is_given_what_its_secret_has(overlay: str, files: int) -> None:
    given = re.findall(r"--from-file=(\S*OVERLAY/secrets/\S+)", part("Upgrade"))
    text = (DEPLOY / f"k8s/overlays/{overlay}/kustomization.yaml").read_text(encoding="utf-8")
    (secret,) = [one for one in yaml.safe_load(text)["secretGenerator"] if one["name"] == "nats"]
    assert [one.replace("OVERLAY/", "") for one in given][:files] == secret["files"]


def test_an_upgrade_applies_nothing_before_nats_has_its_users() -> None:
    text = part("Upgrade")
    assert text.index("create secret generic nats") < text.index("kubectl apply -k OVERLAY")
    assert text.index("Do not apply yet") < text.index("create secret generic nats")


@pytest.mark.parametrize(("name", "script"), JOBS)
def test_a_job_is_the_operators_command_with_other_words(local: list[Resource], name: str, script: str) -> None:
    spec = named(local, "CronJob")["admin"]["spec"]["jobTemplate"]["spec"]
    job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name, "namespace": "tlim"}, "spec": spec}
    done = subprocess.run(  # noqa: S603
        [program("sed"), script], input=json.dumps(job, indent=4), capture_output=True, text=True, check=True
    )
    made = json.loads(done.stdout)
    (container,) = made["spec"]["template"]["spec"]["containers"]
    command, arguments = container["command"], container["args"]
    (before,) = spec["template"]["spec"]["containers"]
    container.update(command=before["command"], args=before["args"])
    assert made == job
    assert (command, arguments) != (before["command"], before["args"])
    if command == ["tlim-admin"]:
        options = {option for parameter in COMMANDS[arguments[0]].params for option in parameter.opts}
        assert {one for one in arguments if one.startswith("--")} <= options
    else:
        assert (command, arguments[0].isdigit()) == (["sleep"], True)


def test_the_pages_make_all_these_jobs() -> None:
    assert {"backup", "restore", "files", "verify", "trace"} <= {name for name, _ in JOBS}


def test_databases_are_made_from_a_machine_with_what_the_command_reads() -> None:
    text = section(README, "Databases and roles")
    told = re.findall(r"--env (\w+)", text)
    assert_all_is_read(DatabaseLogin, told)
    ((command, folder),) = re.findall(r'"\$TLIM_IMAGES/admin:\$TLIM_VERSION" (\S+) (\S+)$', text, re.MULTILINE)
    assert command in COMMANDS
    assert f'--volume "$PWD:{Path(folder).parent}:ro"' in text
