"""Start the service: `python -m file_api`, told by TLIM_* environment variables."""

from tlim_runtime.app import serve

from file_api.app import create_app
from file_api.settings import Settings

if __name__ == "__main__":
    serve(create_app, Settings)
