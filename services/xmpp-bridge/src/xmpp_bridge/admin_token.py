"""`python -m xmpp_bridge.admin_token`: print a short-lived token with admin scope, for operators and provisioning."""

import argparse
import sys
from datetime import timedelta

from tlim_runtime.settings import load_settings

from xmpp_bridge.token_settings import TokenSettings
from xmpp_bridge.tokens import ADMIN_SCOPE, KeyFileError, TokenIssuer, read_keys


def main() -> int:
    """Print a token signed with the first key of TLIM_TOKEN_KEY_FILE. A reader of that file can make such tokens."""
    parser = argparse.ArgumentParser(prog="python -m xmpp_bridge.admin_token", description=__doc__)
    parser.add_argument("--subject", default="admin", help="who the token stands for (default: %(default)s)")
    parser.add_argument("--minutes", type=int, default=10, help="how long it is valid (default: %(default)s)")
    arguments = parser.parse_args()
    settings = load_settings(TokenSettings)
    try:
        issuer = TokenIssuer(read_keys(settings.token_key_file), settings.token_issuer, settings.token_audience)
    except KeyFileError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    token = issuer.issue(arguments.subject, timedelta(minutes=arguments.minutes), ADMIN_SCOPE)
    sys.stdout.write(f"{token}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
