"""`python -m tlim_devstack run|up|down|…`: the commands behind the Makefile's targets of the same name."""

import argparse
import os
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

from tlim_devstack.credentials import DEMO_USERS, load_or_generate
from tlim_devstack.failures import StackError
from tlim_devstack.layout import ROOT
from tlim_devstack.ports import Ports
from tlim_devstack.privileges import close_to_others
from tlim_devstack.shell import check_names
from tlim_devstack.stack import XMPP_SERVERS, Stack

INTERRUPTIONS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
LEAST_FREE_BYTES = 2 * 1024**3  # on a full disk JetStream, PostgreSQL and S3 refuse work or end


def home() -> Path:
    """Return where the stack of this checkout keeps its data."""
    return Path(os.environ.get("TLIM_HOME") or ROOT / ".tlim")


def build_stack() -> Stack:
    """Return the stack as the environment describes it: TLIM_HOME, TLIM_PORT_*, TLIM_BIND, TLIM_XMPP_SERVER."""
    xmpp = os.environ.get("TLIM_XMPP_SERVER") or "ejabberd"
    possible = [name for name, server in XMPP_SERVERS.items() if server.diverts]
    if xmpp not in possible:
        raise StackError(f"TLIM_XMPP_SERVER is {xmpp!r}; it can be {' or '.join(possible)}")
    started = time.monotonic()
    return Stack(
        home(),
        Ports.from_environment(),
        xmpp,
        public_address=os.environ.get("TLIM_BIND") or "127.0.0.1",
        demo_users=DEMO_USERS,
        say=lambda text: print(f"{time.monotonic() - started:6.1f} s  {text}", flush=True),
    )


def run() -> None:
    """Start everything, print how to use it, and stop it at Ctrl-C (or SIGTERM, or when the terminal is closed)."""
    check_names()
    _check_disk()
    stack = build_stack()
    _refuse_second(stack)
    _be_interruptible()
    try:
        stack.start()
        print(_welcome(stack, "Ctrl-C stops it."), flush=True)
        while stack.supervisor.is_running():
            time.sleep(1)
        raise StackError("the process runner has ended: everything is stopped")
    except KeyboardInterrupt:
        print("\nStopping …", flush=True)
        stack.stop()
        print("Everything is stopped; the data stays in", stack.home, flush=True)


def up() -> None:
    """Start everything in the background; returns when it is ready."""
    check_names()
    _check_disk()
    stack = build_stack()
    if not stack.supervisor.is_running():
        _be_interruptible()
        stack.start(background=True)
    print(_welcome(stack, "`make down` stops it."))


def down() -> None:
    """Stop what `up` (or `run` in another terminal) started; data stays."""
    if not home().exists():
        print("Nothing is running.")
        return
    stack = build_stack()
    running = stack.supervisor.is_running()
    stack.stop()
    print(f"Everything is stopped; the data stays in {stack.home}" if running else "Nothing is running.")


def status() -> None:
    """Print each part's state; exits 1 when nothing is running."""
    stack = build_stack()
    if not stack.supervisor.is_running():
        raise StackError("tlim is not running")
    for name, state in stack.supervisor.states().items():
        print(f"{name:15} {state}")


def migrate() -> None:
    """Bring the databases of the running stack to the newest migrations."""
    stack = build_stack()
    if not stack.supervisor.is_running():
        raise StackError("tlim is not running; every start runs the migrations")
    stack.migrate()
    print("The databases are up to date.")


def demo_users() -> None:
    """Print the demo users, one `user password` per line."""
    for user, password in load_or_generate(home() / "secrets").users.items():
        print(user, password)


def admin_token() -> None:
    """Print a token with scope admin for the running stack, good for an hour."""
    print(build_stack().admin_token())


def clean_data() -> None:
    """Remove all data and secrets; refused while the stack runs."""
    if not home().exists():
        print("There is no data.")
        return
    stack = build_stack()
    if stack.supervisor.is_running():
        raise StackError("tlim is running: stop it first (make down, or Ctrl-C where it runs)")
    shutil.rmtree(stack.home)
    print(f"Removed {stack.home}")


COMMANDS: dict[str, Callable[[], None]] = {
    "run": run,
    "up": up,
    "down": down,
    "status": status,
    "migrate": migrate,
    "demo-users": demo_users,
    "admin-token": admin_token,
    "clean-data": clean_data,
}


def main() -> None:
    """Run one command. Any failure gives one line on stderr, and exit 1."""
    parser = argparse.ArgumentParser(prog="python -m tlim_devstack", description="tlim on this machine.")
    parser.add_argument("command", choices=COMMANDS)
    command = COMMANDS[parser.parse_args().command]
    try:
        command()
    except StackError as error:
        raise SystemExit(f"tlim: {error}") from None
    except KeyboardInterrupt:
        raise SystemExit("\ntlim: interrupted, nothing is left running") from None
    except Exception as error:  # noqa: BLE001  # the user gets a sentence; the details are in a file
        raise SystemExit(f"tlim: {_sentence(error)}") from None


def _sentence(error: Exception) -> str:
    sentence = f"{error}" if isinstance(error, OSError) else f"{type(error).__name__}: {error}"
    try:
        details = home() / "logs" / "devstack-failure.log"
        details.parent.mkdir(parents=True, exist_ok=True)
        details.write_text("".join(traceback.format_exception(error)))
    except OSError:
        return sentence  # the failure may be that of the disk
    return f"{sentence} (details: {details})"


def _check_disk() -> None:
    place = home()
    close_to_others(place)
    free = shutil.disk_usage(place).free
    if free < LEAST_FREE_BYTES:
        raise StackError(f"only {free // 1024**2} MiB are free on the disk of {place}: tlim needs 2 GiB")


def _refuse_second(stack: Stack) -> None:
    if stack.supervisor.is_running():
        raise StackError(f"tlim is already running from {stack.home} (make down stops it)")


def _be_interruptible() -> None:
    for number in INTERRUPTIONS:
        signal.signal(number, _interrupt)


def _interrupt(number: int, frame: object) -> None:
    del number, frame
    for other in INTERRUPTIONS:
        signal.signal(other, signal.SIG_IGN)  # stopping takes seconds; a second Ctrl-C must not break it off
    raise KeyboardInterrupt


def _welcome(stack: Stack, how_to_stop: str) -> str:
    where, users = stack.addresses, stack.credentials.users
    people = "\n".join(f"  {user:8}{password}" for user, password in users.items())
    ports = stack.ports
    options = (
        ""
        if (ports.gateway, ports.xmpp) == (Ports.gateway, Ports.xmpp)
        else (f" --gateway {where.gateway} --xmpp localhost:{ports.xmpp}")
    )
    tlim = Path(sys.executable).with_name("tlim")
    command = os.path.relpath(tlim) if tlim.is_relative_to(Path.cwd()) else str(tlim)
    return f"""
tlim is ready. {how_to_stop}

  HTTP gateway     {where.gateway}
  XMPP             localhost:{where.xmpp_port}, domain {where.domain} (STARTTLS; trust {where.ca_file})
  XMPP, WebSocket  {where.websocket}

Demo users and their passwords:
{people}

Try, in another terminal:
  {command} login bob{options} && {command} --as bob listen
  {command} login alice{options} && {command} --as alice send --to bob "hi"
  {command} --as alice history bob
"""


if __name__ == "__main__":
    main()
