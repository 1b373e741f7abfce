"""Start the service: `python -m message_store`, told by TLIM_* environment variables."""

from tlim_runtime.serving import serve

if __name__ == "__main__":
    serve("message_store")
