"""Start the service: `python -m session_api`, told by TLIM_* environment variables."""

from tlim_runtime.serving import serve

if __name__ == "__main__":
    serve("session_api")
