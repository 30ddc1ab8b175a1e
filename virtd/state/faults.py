"""Fault points: the named steps at which tests let a process die or stop, or a system call fail.

Every operation of several steps passes a point at each of them. Off in normal use, when a point costs one comparison.
On in processes that find the environment variable VIRTD_FAULTS, which only tests set (tests/faults): it names a
directory with

    seen    a line for each point that was passed: role, point, whether a system call may fail there
    plan    optional, JSON: at which point (role, point, the how-manieth time) what is to happen

The role is the first word of a process's title: 'worker', 'guest', 'network', … The plan is read at each point, so that
one server serves many plans; it is carried out once, and renamed to `fired` then.
"""

import os

VARIABLE = "VIRTD_FAULTS"

_directory = os.environ.get(VARIABLE)


def point(name: str, *, fails: bool = False) -> None:
    """A step of an operation has been reached.

    Args:
        name: what has just been done, or is about to fail, as 'subject.step'.
        fails: whether this stands for a system call that may fail.

    Raises:
        OSError: the test wants the system call to fail. Never where `fails` is not set.
    """
    if _directory is not None:
        _pass(_directory, name, fails)


def _pass(directory: str, name: str, fails: bool) -> None:
    import fcntl
    import json

    import setproctitle

    title = setproctitle.getproctitle()
    role = title.removeprefix("virtd: ").split()[0] if title.startswith("virtd: ") else "client"
    line = f"{role} {name} {int(fails)}\n".encode()
    with open(f"{directory}/seen", "ab+", buffering=0) as seen:
        fcntl.flock(seen, fcntl.LOCK_EX)
        seen.write(line)
        seen.seek(0)
        turn = seen.read().splitlines(keepends=True).count(line)
        try:
            with open(f"{directory}/plan", encoding="utf-8") as file:
                plan = json.load(file)
        except FileNotFoundError:
            return
        if (plan["role"], plan["point"], plan["turn"]) != (role, name, turn):
            return
        os.rename(f"{directory}/plan", f"{directory}/fired")
    _act(plan["action"], name)


def _act(action: str, name: str) -> None:
    import errno
    import signal

    if action in ("SIGKILL", "SIGSTOP"):
        os.kill(os.getpid(), getattr(signal, action))
        return
    number = getattr(errno, action)
    raise OSError(number, os.strerror(number), f"fault point {name}")
