"""Running the programs that do the work on storage: found in the path, ended with their caller, errors as libvirt's.

A program holds the locks it is given for as long as it runs, even if its caller is killed; and it is killed with it.
"""

import math
import os
import shlex
import shutil
import signal
import subprocess
from collections.abc import Mapping, Sequence

from virtd import constants as c
from virtd import deadlines
from virtd.deadlines import DeadlineExceeded
from virtd.errors import VirtError
from virtd.state import files

_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
_PR_SET_PDEATHSIG = 1  # prctl(2)
_OUTPUT_MAX = 1 << 24  # bytes of output that are kept
# Below this bound a call is only being tried, in a process that serves others, and is done again in one of its own.
_TRIAL = 1.0  # seconds
_ERROR_MAX = 4096  # characters of error output that are shown


def find(program: str) -> str:
    """A program's path.

    Raises:
        VirtError: VIR_ERR_SYSTEM_ERROR naming the program, it is not installed.
    """
    path = installed(program)
    if path is None:
        text = f"Cannot find '{program}' in path: {os.strerror(2)}"
        raise VirtError(c.VIR_ERR_SYSTEM_ERROR, text, domain=c.VIR_FROM_NONE)
    return path


def installed(program: str) -> str | None:
    """A program's path; None if it is not installed."""
    return shutil.which(program, path=f"{os.environ.get('PATH', '')}:{_PATH}")


def run(
    program: str,
    arguments: Sequence[str],
    *,
    keep: Sequence[int] = (),
    shown: Mapping[str, str] | None = None,
    accept: Sequence[int] = (0,),
    seconds: float | None = None,
    environment: Mapping[str, str] | None = None,
) -> str:
    """Run a program to its end; returns its standard output.

    Args:
        program: its name.
        arguments: what comes after it.
        keep: descriptors that it gets: locks, secrets.
        shown: replacements in messages (a temporary name by the real one).
        accept: exit statuses that are no errors.
        seconds: how long it may take; as long as it needs, or as the call may, if not given.
        environment: variables that it gets besides ours.

    Raises:
        VirtError: VIR_ERR_INTERNAL_ERROR with the program's own words.
        DeadlineExceeded: it took too long and was killed.
    """
    command = [find(program), *arguments]
    bound = deadlines.remaining(math.inf if seconds is None else seconds)
    if bound < _TRIAL:
        raise DeadlineExceeded(f"'{program}' takes a process of its own")
    try:
        result = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            pass_fds=keep,
            env={**os.environ, **(environment or {}), "LC_ALL": "C"},
            preexec_fn=_die_with(os.getpid()),
            check=False,
            timeout=None if bound == math.inf else bound,
        )
    except subprocess.TimeoutExpired:
        text = f"'{shlex.join(command)}' did not end in {bound:.0f} s"
        raise DeadlineExceeded(_replaced(text, shown)) from None
    except OSError as error:
        raise files.os_error(error, f"cannot execute '{command[0]}'") from None
    if result.returncode not in accept:
        how = "unexpected exit status" if result.returncode > 0 else "unexpected fatal signal"
        # Some say what went wrong where they say everything else.
        errors = (result.stderr or result.stdout).decode(errors="replace")[:_ERROR_MAX]
        text = f"Child process ({shlex.join(command)}) {how} {abs(result.returncode)}: {errors}"
        raise VirtError(c.VIR_ERR_INTERNAL_ERROR, _replaced(text, shown), domain=c.VIR_FROM_NONE)
    return result.stdout[:_OUTPUT_MAX].decode(errors="surrogateescape")


def _replaced(text: str, shown: Mapping[str, str] | None) -> str:
    for old, new in (shown or {}).items():
        text = text.replace(old, new)
    return text


def _die_with(parent: int) -> "_Preparation":
    import ctypes

    return _Preparation(ctypes.CDLL(None), parent)


class _Preparation:
    """What the forked child does before it becomes the program; nothing that allocates much."""

    def __init__(self, libc: object, parent: int) -> None:
        self._prctl = libc.prctl  # type: ignore[attr-defined]
        self._parent = parent

    def __call__(self) -> None:
        self._prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != self._parent:
            os._exit(127)  # the parent was killed before it could be tied to it
