"""The frame of a process that looks into one file: `python -I -m file_api.inspect.pictures [size]`, or `….recordings`.

Here strangers' files meet decoders written in C. The process therefore has no secrets and no network addresses, and the
kernel limits its memory and time. The file comes on standard input. The answer is one line of JSON, followed by the
bytes of the thumbnail if a size was given. It is `{"unsuitable": "why"}` when the file cannot be read.
"""

import json
import resource
import sys
from collections.abc import Callable

from file_api.inspect.inspection import (
    MAX_INSPECTED_BYTES,
    MAX_WORKER_BYTES,
    MAX_WORKER_SECONDS,
    Inspected,
    UnsuitableError,
)

_LIMITS = {
    resource.RLIMIT_AS: (MAX_WORKER_BYTES, MAX_WORKER_BYTES),
    # At the first limit the kernel sends SIGXCPU, which tells the service the cause. At the second it sends SIGKILL.
    resource.RLIMIT_CPU: (MAX_WORKER_SECONDS, MAX_WORKER_SECONDS + 5),
    resource.RLIMIT_CORE: (0, 0),
    resource.RLIMIT_FSIZE: (0, 0),  # it writes to a pipe and to nothing else
}


def work(inspect: Callable[[bytes], Inspected]) -> None:
    """Read the file, look into it, answer."""
    for limit, most in _LIMITS.items():
        resource.setrlimit(limit, most)
    thumbnail = b""
    try:
        found = inspect(sys.stdin.buffer.read(MAX_INSPECTED_BYTES))
    except UnsuitableError as error:
        answer: dict[str, object] = {"unsuitable": str(error)}
    except MemoryError:
        answer = {"unsuitable": "it needs too much memory"}
    else:
        answer = found.facts._asdict()
        if found.thumbnail is not None:
            answer["media_type"], thumbnail = found.thumbnail.media_type, found.thumbnail.data
    sys.stdout.buffer.write(json.dumps(answer).encode() + b"\n" + thumbnail)
    sys.stdout.buffer.flush()
