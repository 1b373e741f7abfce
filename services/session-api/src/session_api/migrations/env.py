"""Entry point of alembic."""

from tlim_runtime.migrations import run_env

from session_api.models import SessionTable

run_env(SessionTable.metadata)
