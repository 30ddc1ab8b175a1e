"""Processes: telling them apart for good, and starting those that outlive whoever starts them."""

import errno
import gc
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import NoReturn

from virtd import deadlines
from virtd.errors import VirtError
from virtd.state.faults import point
from virtd.state.files import os_error


@dataclass(slots=True)
class Process:
    """A process that cannot be mistaken for a later one with the same pid."""

    pid: int
    start: int  # clock ticks after boot, /proc/PID/stat field 22 (proc(5))

    def alive(self) -> bool:
        """Whether it still runs; a zombie does not."""
        found = start_time(self.pid)
        return found is not None and found == self.start

    @classmethod
    def of(cls, pid: int) -> "Process":
        """The process that has this pid now; one that has none is not alive."""
        return cls(pid, start_time(pid) or -1)


def stat_fields(pid: int) -> list[bytes] | None:
    """The fields of /proc/PID/stat from the third, the state, on (proc(5)); None if there is no such process."""
    try:
        # Without open(), which asks the kernel three things more.
        descriptor = os.open(f"/proc/{pid}/stat", os.O_RDONLY | os.O_CLOEXEC)
        try:
            # The name, in parentheses, may contain anything: what follows is counted from its end.
            return os.read(descriptor, 4096).rpartition(b")")[2].split()
        finally:
            os.close(descriptor)
    except (FileNotFoundError, ProcessLookupError):
        return None


def start_time(pid: int) -> int | None:
    """When a process was started, in clock ticks after boot; None if there is no such process, or only a zombie."""
    fields = stat_fields(pid)
    return None if fields is None or fields[0] in (b"Z", b"X") else int(fields[19])


def detach(body: Callable[[], None], title: str, log_path: str, keep: list[int]) -> None:
    """Run a function in a process of its own, which nobody waits for and no terminal reaches.

    Args:
        body: what it does; the process ends with it.
        title: how `ps` shows it.
        log_path: where its standard error goes; its other standard descriptors lead nowhere.
        keep: the descriptors it takes along; all others are closed.

    Raises:
        VirtError: VIR_ERR_SYSTEM_ERROR, it cannot be forked.
    """
    pid = fork()
    if pid:
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        if code:
            raise _no_fork(OSError(code, os.strerror(code) if code > 0 else f"killed by signal {-code}"))
        return
    try:
        # A session of its own: no hang-up and no Ctrl-C of the caller's terminal reaches it. The second fork makes it
        # nobody's child, so that nobody has to reap it.
        os.setsid()
        point("process.fork-again", fails=True)
        if os.fork():
            os._exit(0)
    except OSError as error:
        os._exit(error.errno or errno.EAGAIN)
    _become(body, title, log_path, keep)


def fork() -> int:
    """As os.fork().

    Raises:
        VirtError: VIR_ERR_SYSTEM_ERROR: there is no room for another process.
    """
    try:
        point("process.fork", fails=True)
        return os.fork()
    except OSError as error:
        raise _no_fork(error) from None


def _no_fork(error: OSError) -> VirtError:
    return os_error(error, "cannot fork child process")


def _become(body: Callable[[], None], title: str, log_path: str, keep: list[int]) -> NoReturn:
    global reporter
    reporter, code = None, 1
    try:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD, signal.SIGALRM, signal.SIGUSR1, signal.SIGUSR2):
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        signal.signal(signal.SIGPIPE, signal.SIG_IGN)
        signal.set_wakeup_fd(-1)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        from setproctitle import setproctitle

        setproctitle(title)
        os.chdir("/")
        null = os.open("/dev/null", os.O_RDWR)
        output = os.open(log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        for descriptor, copy in ((null, 0), (null, 1), (output, 2)):
            os.dup2(descriptor, copy)
        close_all_but({0, 1, 2, *keep})
        gc.freeze()
        gc.enable()
        with deadlines.unlimited():
            body()
        code = 0
    except BaseException:
        import traceback

        log(traceback.format_exc())
    finally:
        os._exit(code)


def close_all_but(keep: set[int]) -> None:
    """Close every descriptor of this process but these."""
    start = 0
    for descriptor in sorted(keep):
        if start < descriptor:  # CPython 3.11 takes the empty range (0, 0) for everything
            os.closerange(start, descriptor)
        start = descriptor + 1
    os.closerange(start, os.sysconf("SC_OPEN_MAX"))


# Where the lines of log() go in a server's processes, which have a log of another kind.
reporter: Callable[[str], object] | None = None


def log(text: str) -> None:
    """Write a line into the log: that of the server, or that of a detached process, which is its standard error."""
    if reporter is not None:
        reporter(text)
        return
    # By the descriptor: whatever sys.stderr was in the process that forked this one may be something else now.
    os.write(2, f"{stamp(time.time())}: {text}\n".encode(errors="replace"))


def stamp(seconds: float) -> str:
    """A time as libvirt's logs write it: in UTC, with milliseconds."""
    whole = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(seconds))
    return f"{whole}.{int(seconds % 1 * 1000):03d}+0000"
