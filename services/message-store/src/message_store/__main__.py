"""Run message-store: `python -m message_store`."""

from tlim_runtime.app import serve

from message_store.app import create_app
from message_store.settings import Settings

if __name__ == "__main__":
    serve(create_app, Settings)
