"""Start the service: `python -m xmpp_bridge`, told by TLIM_* environment variables."""

from tlim_runtime.serving import serve

if __name__ == "__main__":
    serve("xmpp_bridge")
