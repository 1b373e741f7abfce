"""When root starts a stack, each part runs as a user of its own, which owns its own directory and nothing else."""

import os
import stat
import sys
from collections.abc import Sequence
from pathlib import Path
from pwd import getpwnam

from tlim_devstack.failures import StackError
from tlim_devstack.layout import system_program

FIRST_USER = 65_520
"""The first of our user ids. Debian's policy (9.2.2) and systemd (UIDS-GIDS) give 65520 to 65533 to no user."""

PARTS = (
    "nats",
    "postgres",
    "s3",
    "ejabberd",
    "prosody",
    "gateway",
    "session-api",
    "file-api",
    "message-store",
    "xmpp-bridge",
    "openfire",
)
"""The parts in the order of their user ids."""

INITDB = "initdb"
"""No part: it makes PostgreSQL's data. It refuses to run as a user without a name, so it runs as `nobody`."""

UNPRIVILEGED_PORT = 1024
DAC_OVERRIDE, DAC_READ_SEARCH = 1, 2  # bit numbers of capabilities(7)


def not_as_root(
    part: str, command: list[str], *needed: Path, parent_death: str = "KILL", ports: Sequence[int] = ()
) -> list[str]:
    """Return a command that runs as the part's user if we are root, and as our user otherwise.

    The kernel sends it `parent_death` when its parent ends, however that ends (prctl(2)). It can bind `ports`, also
    those below 1024. `needed` are the part's directory and files of the clone. If other users cannot reach them, for
    example below /root, the command keeps one capability to do so. With it the command can read every file of the
    machine.
    """
    setpriv = [str(system_program("setpriv", "util-linux")), "--pdeathsig", parent_death]
    if os.geteuid() != 0:
        return [*setpriv, *command]
    _check_executable(Path(command[0]))
    user = str(user_of(part))
    capabilities = ["net_bind_service"] if min(ports, default=UNPRIVILEGED_PORT) < UNPRIVILEGED_PORT else []
    if closed_to_others(Path(command[0]), *needed):
        capabilities.append(passing_capability())
    options = ["--reuid", user, "--regid", user, "--clear-groups", "--no-new-privs"]
    if capabilities:
        keep = ",".join(f"+{name}" for name in capabilities)
        # PostgreSQL checks its own binary with access(2), which ignores the capability without no_setuid_fixup.
        options += ["--securebits", "+no_setuid_fixup", "--inh-caps", f"-all,{keep}", "--ambient-caps", keep]
    return [*setpriv, *options, *command]


def user_of(part: str) -> int:
    """Return the id of the user and of the group as which a part runs if root has started the stack."""
    return getpwnam("nobody").pw_uid if part == INITDB else FIRST_USER + PARTS.index(part)


def hand_over(directory: Path, part: str) -> None:
    """Create `directory` for a part, and give the part's user everything in it. Others cannot enter it.

    The part may have put links there, to files of other users. A symbolic link is given to it, never the file behind
    it. A file with several names is not given to it, because the other name may be anywhere.
    """
    directory.mkdir(parents=True, exist_ok=True)
    if os.geteuid() == 0:
        user = user_of(part)
        for _, folders, files, here in os.fwalk(directory.resolve()):
            os.chown(here, user, user)
            for name in (*folders, *files):
                status = os.stat(name, dir_fd=here, follow_symlinks=False)
                if status.st_uid != user and (stat.S_ISDIR(status.st_mode) or status.st_nlink == 1):
                    os.chown(name, user, user, dir_fd=here, follow_symlinks=False)
    directory.chmod(0o700)


def close_to_others(home: Path) -> None:
    """Close `home` and everything directly below it to other users. An older release left some of it open.

    If we are root, others may still pass through `home` itself, because the parts' users have their directories there.
    """
    home.mkdir(parents=True, exist_ok=True)
    home.chmod(0o711 if os.geteuid() == 0 else 0o700)
    for path in home.iterdir():
        if not path.is_symlink():
            path.chmod(path.stat().st_mode & 0o700)


def closed_to_others(*paths: Path) -> Path | None:
    """Return the first directory on the way to these paths, or file among them, that other users cannot read.

    A directory among `paths` may be closed itself: it is the part's own.
    """
    for path in paths:
        real = path.resolve()
        for parent in reversed(real.parents):
            if not parent.stat().st_mode & stat.S_IXOTH:
                return parent
        if real.is_file() and not real.stat().st_mode & stat.S_IROTH:
            return real
    return None


def passing_capability() -> str:
    """Return the capability of ours that reaches closed directories; StackError if we have none."""
    status = Path("/proc/self/status").read_text().splitlines()
    effective = int(next(line.split()[1] for line in status if line.startswith("CapEff")), 16)
    if effective >> DAC_READ_SEARCH & 1:
        return "dac_read_search"
    if effective >> DAC_OVERRIDE & 1:
        return "dac_override"
    raise StackError("this directory is closed to other users, and servers do not run as root: use another one")


def _check_executable(program: Path) -> None:
    if not program.stat().st_mode & stat.S_IXOTH:  # no capability that only reads helps here
        raise StackError(f"other users cannot run {program}, and parts do not run as root: chmod -R go+rX {sys.prefix}")
