"""Start the service: `python -m session_api`, told by TLIM_* environment variables."""

from tlim_runtime.app import serve

from session_api.app import create_app
from session_api.settings import Settings

if __name__ == "__main__":
    serve(create_app, Settings)
