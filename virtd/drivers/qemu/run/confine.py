"""How a QEMU process is started: as which user, with what environment, holding which descriptors, and nothing else.

In system mode QEMU runs as a user of its own, without any capability; in session mode as the user it belongs to. It
can gain no privileges (no_new_privs, and -sandbox on its command line), is in a session of its own so that no
terminal's signals reach it, and is not bound to its parent's life: guests outlive us.

This module knows no domain and no monitor.
"""

import fcntl
import grp
import os
import pwd
import resource
import signal
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import NamedTuple, NoReturn

from virtd import constants as c
from virtd.errors import VirtError
from virtd.state.process import fork

# What distributions call the user that QEMU runs as: Debian and Ubuntu; Fedora, openSUSE and Arch.
USERS = ("libvirt-qemu", "qemu")
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# What QEMU takes over from the environment of its user in session mode.
PASSED = ("PATH", "HOME", "USER", "LOGNAME", "TMPDIR", "LD_PRELOAD", "LD_LIBRARY_PATH", "XDG_RUNTIME_DIR")
SANDBOX = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"
# QEMU holds a descriptor for each image, socket and queue; 1024, the usual soft limit, is too few.
OPEN_FILES = 65536

# What QEMU is handed lies from here on, so that descriptors which a client passes can become 3, 4, ….
LOWEST = 64

# linux/prctl.h, linux/capability.h
_PR_CAPBSET_DROP = 24
_PR_SET_NO_NEW_PRIVS = 38
_LAST_CAPABILITY = 63


class User(NamedTuple):
    """The user and groups that QEMU runs with."""

    uid: int
    gid: int
    groups: tuple[int, ...]

    @property
    def label(self) -> str:
        """As libvirt writes it in a DAC label."""
        return f"+{self.uid}:+{self.gid}"


def find_user(*, privileged: bool, user: str | None = None, group: str | None = None) -> User | None:
    """The user that QEMU is to run as.

    Args:
        privileged: system mode; in session mode the user stays who he is.
        user: the configured user: a name, a number, or a number behind a plus sign. Without it the first of
            USERS that exists is taken.
        group: the configured group, likewise; without it the group of the user's name, or else his primary one.

    Returns:
        None where nothing is changed: in session mode, and in system mode if no such user exists and none is
        configured. QEMU then runs as root without capabilities, of which whoever starts it should warn.

    Raises:
        VirtError: VIR_ERR_INTERNAL_ERROR: what is configured does not exist.
    """
    if not privileged:
        return None
    if user is None:
        entry = next((entry for name in USERS if (entry := _by_name(name)) is not None), None)
        if entry is None:
            return None
    else:
        entry = _by_name(user.removeprefix("+")) if not user.startswith("+") else None
        if entry is None:
            uid = _number(user, "user")
            entry = next((found for found in pwd.getpwall() if found.pw_uid == uid), None)
            if entry is None:
                gid = _group(group) if group is not None else uid
                return User(uid, gid, (gid,))
    gid = _group(group) if group is not None else _namesake(entry)
    return User(entry.pw_uid, gid, tuple(sorted({gid, *os.getgrouplist(entry.pw_name, entry.pw_gid)})))


def environment(home: str, *, privileged: bool) -> dict[str, str]:
    """The environment of a QEMU process.

    Args:
        home: a directory of the guest's own, in system mode for all that QEMU's libraries want to keep.
        privileged: system mode.
    """
    if privileged:
        return {
            "LC_ALL": "C",
            "PATH": PATH,
            "HOME": home,
            "XDG_DATA_HOME": f"{home}/.local/share",
            "XDG_CACHE_HOME": f"{home}/.cache",
            "XDG_CONFIG_HOME": f"{home}/.config",
        }
    passed = {name: os.environ[name] for name in PASSED if name in os.environ}
    return {"LC_ALL": "C", "PATH": PATH, **passed, "XDG_CACHE_HOME": f"{home}/.cache"}


def raised(descriptor: int) -> int:
    """The same file under a number from LOWEST on; the old number is closed."""
    above = fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, LOWEST)
    os.close(descriptor)
    return above


def spawn(
    argv: Sequence[str],
    *,
    environment: Mapping[str, str],
    output: int,
    fds: Sequence[int] = (),
    user: User | None = None,
    group: str | None = None,
    files_limit: int = OPEN_FILES,
    cpus: Collection[int] | None = None,
    locked: int | None = None,
    privileged: bool = False,
    record: Callable[[int], None] | None = None,
) -> int:
    """Start a program in confinement, as a child of this process.

    Args:
        argv: the program's path and its arguments.
        environment: all of its environment.
        output: descriptor that becomes its standard output and error; its standard input is empty.
        fds: descriptors that it keeps, under the same numbers. They must lie above 2.
        user: who it runs as; None for who runs this.
        group: directory of the control group it is put into before it runs anything.
        files_limit: how many descriptors it may have.
        cpus: the host's CPUs that it may run on; None: those that its parent may.
        locked: how many bytes of memory it may lock, RLIM_INFINITY for all; None: as many as its parent.
        privileged: whether it keeps what root may do, for programs that confine themselves.
        record: called with its process id before the program runs, to write that down. If this raises, or this process
            is killed meanwhile, the program is never run: there is no program of which nobody knows.

    Returns:
        Its process id, when it has been executed. Reaping it is the caller's matter.

    Raises:
        VirtError: VIR_ERR_SYSTEM_ERROR naming the step that failed; there is no process then.
    """
    told, tell = os.pipe()
    gate, opener = os.pipe()
    try:
        pid = fork()
    except VirtError:
        for descriptor in (told, tell, gate, opener):
            os.close(descriptor)
        raise
    if pid == 0:
        os.close(told)
        os.close(opener)
        most = {resource.RLIMIT_NOFILE: files_limit, **({} if locked is None else {resource.RLIMIT_MEMLOCK: locked})}
        _become(argv, environment, output, fds, user, group, most, cpus, tell, gate, privileged=privileged)
    os.close(tell)
    os.close(gate)
    try:
        try:
            if record is not None:
                record(pid)
            os.write(opener, b"!")
        except BrokenPipeError:
            pass  # it has failed before it came to the gate, and says so
        except BaseException:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            raise
        finally:
            os.close(opener)
        # Closed by a successful exec. Nothing before that can hang.
        failure = os.read(told, 4096)
    finally:
        os.close(told)
    if failure:
        os.waitpid(pid, 0)
        raise VirtError(c.VIR_ERR_SYSTEM_ERROR, failure.decode(errors="replace"), domain=c.VIR_FROM_QEMU)
    return pid


def may_use(found: os.stat_result, user: User, wanted: int = os.R_OK | os.W_OK) -> bool:
    """Whether the permission bits of a file let the user read, write or search it.

    Args:
        found: the file's stat().
        user: the user.
        wanted: R_OK, W_OK, X_OK.
    """
    if found.st_uid == user.uid:
        return (found.st_mode >> 6) & wanted == wanted
    if found.st_gid == user.gid or found.st_gid in user.groups:
        return (found.st_mode >> 3) & wanted == wanted
    return found.st_mode & wanted == wanted


def _become(
    argv: Sequence[str],
    environment: Mapping[str, str],
    output: int,
    fds: Sequence[int],
    user: User | None,
    group: str | None,
    limits: Mapping[int, int],
    cpus: Collection[int] | None,
    tell: int,
    gate: int,
    *,
    privileged: bool,
) -> NoReturn:
    """In the child: give everything up that the program must not have, and become the program."""
    doing = "cannot prepare"
    try:
        os.setsid()
        signal.set_wakeup_fd(-1)
        for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
            # What Python ignores (SIGPIPE) would stay ignored in the program.
            if signal.getsignal(number) not in (None, signal.SIG_DFL):
                signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        if group is not None:
            doing = f"cannot enter control group '{group}' for"
            with open(f"{group}/cgroup.procs", "w", encoding="ascii") as procs:
                procs.write("0\n")
        doing = "cannot set limits of"
        for kind, wanted in limits.items():
            _limit(kind, wanted)
        if cpus is not None:
            doing = "cannot set affinity of"
            os.sched_setaffinity(0, cpus)
        os.umask(0o002)
        os.chdir("/")
        doing = "cannot set up descriptors of"
        null = os.open("/dev/null", os.O_RDONLY)
        for descriptor, copy in ((null, 0), (output, 1), (output, 2)):
            os.dup2(descriptor, copy)
        _keep({0, 1, 2, tell, gate, *fds})
        for descriptor in fds:
            os.set_inheritable(descriptor, True)
        doing = "cannot drop privileges of"
        if not privileged:
            _drop(user)
        doing = "Cannot run"
        if not os.read(gate, 1):
            os._exit(127)  # the parent has died
        os.execve(argv[0], list(argv), dict(environment))
    except OSError as error:
        message = f"{doing} '{argv[0]}': {error.strerror or error}"
        os.write(tell, message.encode())
    except BaseException as error:
        os.write(tell, f"{doing} '{argv[0]}': {error!r}".encode())
    finally:
        os._exit(127)


def _limit(kind: int, wanted: int) -> None:
    """Set a limit: of open files as near as it may come, of locked memory as it is wanted or not at all."""
    _, most = resource.getrlimit(kind)
    if kind == resource.RLIMIT_NOFILE:
        resource.setrlimit(kind, (wanted if most == resource.RLIM_INFINITY else min(wanted, most), most))
    elif most != resource.RLIM_INFINITY and (wanted == resource.RLIM_INFINITY or most < wanted):
        resource.setrlimit(kind, (wanted, wanted))
    else:
        resource.setrlimit(kind, (wanted, most))


def _keep(wanted: set[int]) -> None:
    start = 0
    for descriptor in sorted(wanted):
        # Not for an empty range: CPython 3.11 takes closerange(0, 0) for all descriptors.
        if start < descriptor:
            os.closerange(start, descriptor)
        start = descriptor + 1
    os.closerange(start, os.sysconf("SC_OPEN_MAX"))


def _drop(user: User | None) -> None:
    """Become the user, and be able to become nobody else."""
    import ctypes  # needed in the child only

    libc = ctypes.CDLL(None, use_errno=True)
    if os.geteuid() == 0:
        # With an empty bounding set not even root's exec gives capabilities.
        for number in range(_LAST_CAPABILITY + 1):
            if libc.prctl(_PR_CAPBSET_DROP, number, 0, 0, 0) < 0:
                break  # the kernel knows no more of them
        if user is not None:
            os.setgroups(user.groups)
            os.setresgid(user.gid, user.gid, user.gid)
            os.setresuid(user.uid, user.uid, user.uid)
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def _by_name(name: str) -> pwd.struct_passwd | None:
    try:
        return pwd.getpwnam(name)
    except KeyError:
        return None


def _number(name: str, kind: str) -> int:
    digits = name.removeprefix("+")
    if not digits.isascii() or not digits.isdigit():
        raise VirtError(c.VIR_ERR_INTERNAL_ERROR, f"Failed to parse {kind} '{name}'", domain=c.VIR_FROM_QEMU)
    return int(digits)


def _group(name: str) -> int:
    if not name.startswith("+"):
        try:
            return grp.getgrnam(name).gr_gid
        except KeyError:
            pass
    return _number(name, "group")


def _namesake(entry: pwd.struct_passwd) -> int:
    """The group of the user's name; Debian's user has the group kvm as his primary one, and this one beside it."""
    try:
        return grp.getgrnam(entry.pw_name).gr_gid
    except KeyError:
        return entry.pw_gid
