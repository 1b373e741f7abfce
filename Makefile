# `make` lists the targets. Each target first installs what it needs (scripts/bootstrap), and does so only once.
# `make run` and `make up` read TLIM_PORT_<NAME>, TLIM_BIND, TLIM_HOME and TLIM_XMPP_SERVER: see libs/tlim-devstack.

.DEFAULT_GOAL := help
SHELL := /bin/sh
PYTHON := .venv/bin/python
PYTEST := .venv/bin/pytest -q
# Several processes run the tests, each with servers of its own. The tests of one file stay together. Unit tests compute:
# two processes keep two processors busy. Tests with servers wait as well, so a third process uses that time.
IN_PARALLEL := --dist loadfile --no-loadscope-reorder
COMPUTING := -n 2 $(IN_PARALLEL)
WAITING := -n 3 $(IN_PARALLEL)
STACK := $(PYTHON) -m tlim_devstack
# The bridge comes first, because it has the longest files: otherwise the other processes wait for these at the end.
INTEGRATION_FOLDERS := $(wildcard services/xmpp-bridge/tests/integration libs/*/tests/integration services/[!x]*/tests/integration) \
	tests/upgrade
TEST_FOLDERS := $(shell find libs/*/tests services/*/tests -name '*.py' -printf '%h\n' | sort -u)
SERVICES := session_api file_api message_store xmpp_bridge
DASHBOARD := deploy/grafana/dashboards/tlim.json
XMPP_SERVER := $(or $(TLIM_XMPP_SERVER),ejabberd)
# The tests ignore the settings of `make run`, so they have a setting of their own.
STORIES_SERVER := $(or $(TLIM_E2E_XMPP),ejabberd)
# Python reads and prints UTF-8, whatever the locale is: there are Chinese names.
export PYTHONUTF8 := 1
# pytest keeps the modules that it rewrites, if bytecode may be written. Otherwise each of its processes takes 6 s longer.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help ready ready-xmpp ready-servers ready-bench run up down status demo-users admin-token clean-data \
	images images-same sbom images-save images-load secrets compose-up compose-down compose-token \
	test checks lint types unit integration coverage e2e e2e-compose e2e-k8s e2e-prosody torture bench bench-check upgrade-drill upgrade-beside drift format migrate docs proofs openapi lock

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' Makefile

ready:
	@scripts/bootstrap

ready-xmpp:
	@scripts/bootstrap $(XMPP_SERVER)

ready-servers: # some integration tests need ejabberd, others Prosody
	@scripts/bootstrap ejabberd prosody

# --- the system on this machine --------------------------------------------------------------------------------------

run: ready-xmpp ## start the whole system; Ctrl-C stops it
	@exec $(STACK) run

up: ready-xmpp ## the same in the background; returns when it is ready
	@$(STACK) up

down: ready ## stop what `make up` started; data stays
	@$(STACK) down

status: ready ## what runs
	@$(STACK) status

demo-users: ready ## the demo users, one `user password` per line
	@$(STACK) demo-users

admin-token: ready ## a token with scope admin, for an hour
	@$(STACK) admin-token

clean-data: ready ## remove all data and secrets (.tlim)
	@$(STACK) clean-data

# --- the system in containers: only Docker is needed -----------------------------------------------------------------

images: ## build our container images (TLIM_IMAGES, TLIM_VERSION, TLIM_REGISTRY: see scripts/images)
	@scripts/images build

images-same: images ## build them once more, and compare the layers
	@scripts/images same

sbom: images ## write what is in our images to sbom/ (SPDX); needs syft
	@scripts/images sbom

images-save: ## write all images into one archive (FILE=tlim-images.tar.gz), for a machine without a registry
	@scripts/images save $(or $(FILE),tlim-images.tar.gz)

images-load: ## read that archive
	@scripts/images load $(or $(FILE),tlim-images.tar.gz)

secrets: images ## make the secrets of a deployment in secrets/; those that are there stay
	@scripts/secrets

compose-up: images secrets ## start the whole system in containers, and wait until it is ready
	@docker compose up --detach --wait --remove-orphans

compose-down: ## stop it; data stays (docker compose down --volumes removes it)
	@docker compose down --remove-orphans

compose-token: ## a token with scope admin, for an hour
	@docker compose exec -T xmpp-bridge python3 -m xmpp_bridge.admin_token --minutes 60

# --- proofs ----------------------------------------------------------------------------------------------------------

test: checks unit integration e2e ## lint, types, drift, unit, integration and e2e; CI (.ci/run) adds Prosody, Java, clamd, Chromium, Prometheus, a torture and containers
	@echo "== all of it passed"

checks: ready # each of them uses one processor, so two run at a time
	@$(MAKE) --no-print-directory --jobs=2 --output-sync=target types lint drift

lint: ready ## ruff: rules and format; import-linter: permitted imports; deptry: imports are declared
	@echo "== lint"
	@.venv/bin/ruff check --quiet .
	@.venv/bin/ruff format --quiet --check .
	@.venv/bin/lint-imports --no-logo >/dev/null || .venv/bin/lint-imports
	@for package in libs/* services/*; do \
		said=$$(cd $$package && ../../.venv/bin/deptry --no-ansi src --config pyproject.toml 2>&1) || \
		{ echo "$$package: $$said"; exit 1; }; \
	done

types: ready ## mypy, strict
	@echo "== types"
	@.venv/bin/mypy --no-error-summary libs/*/src services/*/src tests bench
	@# One folder of tests at a time, because several services have test files of the same name.
	@for folder in $(TEST_FOLDERS); do .venv/bin/mypy --no-error-summary $$folder/*.py || exit 1; done

drift: ready ## check that the generated files (openapi.json, docs/protocol.md, docs/asyncapi.json, docs/metrics.md, docs/settings.md, docs/proofs.md, Grafana's dashboard, the Prometheus operator's rules) are up to date
	@echo "== generated files"
	@$(PYTHON) -m tlim_protocol.docs docs/protocol.md --check
	@$(PYTHON) -m tlim_protocol.asyncapi docs/asyncapi.json --check
	@$(PYTHON) -m tlim_runtime.metrics_page docs/metrics.md $(SERVICES) --check
	@$(PYTHON) -m tests.deploy.settings_page --check
	@$(PYTHON) -m tlim_admin.dashboard $(DASHBOARD) --check
	@$(PYTHON) -m tests.deploy.prometheus_rule --check
	@for service in $(SERVICES) gateway; do $(PYTHON) -m tlim_runtime.openapi $$service --check || exit 1; done
	@$(PYTHON) -m tests.e2e.proofs --check

unit: ready ## tests of rules, without servers
	@echo "== unit tests"
	@$(PYTEST) $(COMPUTING) --ignore-glob '*/tests/integration' libs services tests/test_*.py tests/deploy tests/torture

integration: ready-servers ## tests with real PostgreSQL, NATS, S3 and XMPP; migrations against models
	@echo "== integration tests"
	@$(PYTEST) $(WAITING) $(INTEGRATION_FOLDERS)

coverage: ready-servers ## how much of our code the unit and integration tests run, by line and branch
	@$(PYTEST) $(WAITING) --cov --cov-report=term:skip-covered libs services

e2e: ## user stories on the whole system, with ejabberd
	@scripts/bootstrap $(STORIES_SERVER)
	@echo "== end-to-end tests"
	@$(PYTEST) $(WAITING) tests/e2e

e2e-prosody: ## the same stories with Prosody, except those that do not depend on the XMPP server
	@scripts/bootstrap prosody
	@echo "== end-to-end tests, Prosody"
	@TLIM_E2E_XMPP=prosody $(PYTEST) $(WAITING) tests/e2e --ignore=tests/e2e/test_openapi.py

e2e-compose: images secrets ## the stories on docker-compose.yml (STORIES=files), except those that look behind its doors
	@scripts/bootstrap
	@echo "== end-to-end tests, containers"
	@TLIM_E2E_STACK=compose $(PYTEST) --timeout 1200 $(or $(STORIES),tests/e2e)

e2e-k8s: ## the stories in the cluster of KUBECONFIG, and more: pods are replaced under load (deploy/k8s/README.md)
	@scripts/bootstrap
	@$(PYTHON) -m tlim_admin secrets deploy/k8s/overlays/local/secrets
	@echo "== end-to-end tests, Kubernetes"
	@TLIM_E2E_STACK=kubernetes $(PYTEST) --timeout 1200 tests/e2e

torture: ## random people, random faults (SEED=n FAULTS=n; TLIM_E2E_XMPP=prosody): everybody gets all that was acknowledged
	@scripts/bootstrap $(STORIES_SERVER)
	@$(PYTHON) -m tests.torture $(or $(SEED),1) --faults $(or $(FAULTS),200) $(TORTURE)

ready-bench: # besides the servers: what they need for archives in PostgreSQL, and what draws plots
	@scripts/bootstrap ejabberd prosody erlang-p1-pgsql lua-dbi-postgresql
	@$(PYTHON) -c "import matplotlib" 2>/dev/null || { $(PYTHON) -m ensurepip >/dev/null 2>&1; \
		$(PYTHON) -m pip install --quiet --disable-pip-version-check --require-hashes -r bench/requirements.lock; }

bench: ready-bench ## speed beside other systems, into docs/performance.md and docs/scaling.md (ONLY=one_to_one SECONDS=n REPEATS=n)
	@$(PYTHON) -m bench --seconds $(or $(SECONDS),10) --repeats $(or $(REPEATS),5) $(addprefix --only ,$(ONLY))

bench-check: ready-bench ## that each bench still runs: once, for two seconds; docs/ stays as it is
	@page=$$(mktemp -d) && $(PYTHON) -m bench --seconds 2 --repeats 1 --page $$page/performance.md $(addprefix --only ,$(ONLY)) && rm -r $$page

upgrade-drill: ready ## the tests of the release before (or FROM=commit) with its code, on the schema of this one
	@UPGRADE_FROM=$(FROM) $(PYTHON) -m tests.upgrade $(WAITING) $(UPGRADE)

upgrade-beside: ready-xmpp ## an upgrade from the release before (or FROM=commit) and a rollback, while people write
	@UPGRADE_FROM=$(FROM) $(PYTEST) tests/upgrade/beside.py

# --- for changes -----------------------------------------------------------------------------------------------------

format: ready ## format the code, and let ruff correct what it can
	@.venv/bin/ruff check --quiet --fix . ; .venv/bin/ruff format --quiet .

migrate: ready ## run the migrations on the running system's databases
	@$(STACK) migrate

docs: ready ## write docs/protocol.md, asyncapi.json, metrics.md and settings.md, Grafana's dashboard and the Prometheus operator's rules, from the code
	@$(PYTHON) -m tlim_protocol.docs docs/protocol.md
	@$(PYTHON) -m tlim_protocol.asyncapi docs/asyncapi.json
	@$(PYTHON) -m tlim_runtime.metrics_page docs/metrics.md $(SERVICES)
	@$(PYTHON) -m tests.deploy.settings_page
	@$(PYTHON) -m tlim_admin.dashboard $(DASHBOARD)
	@$(PYTHON) -m tests.deploy.prometheus_rule

proofs: ready ## write docs/proofs.md from the marks of the stories
	@$(PYTHON) -m tests.e2e.proofs

openapi: ready ## write services/*/openapi.json, and deploy/caddy/openapi.json from them
	@for service in $(SERVICES) gateway; do $(PYTHON) -m tlim_runtime.openapi $$service || exit 1; done

lock: ready ## write requirements.lock anew (UPGRADE=--upgrade takes the newest versions)
	@scripts/lock $(UPGRADE)
