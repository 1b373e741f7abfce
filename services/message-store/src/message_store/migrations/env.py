"""Entry point of alembic."""

from tlim_runtime.migrations import run_env

from message_store.models import StoreTable

run_env(StoreTable.metadata)
