"""`python -m xmpp_bridge`: run the service with the settings of its environment."""

from tlim_runtime.app import serve

from xmpp_bridge.app import create_app
from xmpp_bridge.settings import Settings

if __name__ == "__main__":
    serve(create_app, Settings)
