"""The health check of a service's container: `python -m tlim_runtime.probe` ends with 0 if /readyz answers 200.

It asks the service at TLIM_PORT of the loopback address, so an image needs no curl. It imports little, because it runs
every few seconds.
"""

import os
import sys
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException

ANSWER_S = 4
"""Below the time-out of the health check itself, so that the reason is printed."""


def main() -> int:
    """Ask once. If the service is not ready, print why: Docker shows it in `docker inspect`."""
    connection = HTTPConnection("127.0.0.1", int(os.environ["TLIM_PORT"]), timeout=ANSWER_S)
    try:
        connection.request("GET", "/readyz")
        answer = connection.getresponse()
        if answer.status == HTTPStatus.OK:
            return 0
        reason = answer.read().decode(errors="replace")
    except (OSError, HTTPException) as error:
        reason = str(error)
    finally:
        connection.close()
    sys.stdout.write(f"not ready: {reason}\n")
    return 1


if __name__ == "__main__":
    sys.exit(main())
