"""Entry point of alembic."""

from tlim_runtime.migrations import run_env

from file_api.models import METADATA

run_env(METADATA)
