"""Paths that may hang: what lies on a server that may be gone.

A system call on a dead server's mount waits for ever and cannot be given up by whoever made it. So nothing may
touch such a path in a process that others need; a forked child may, which its parent can stop waiting for.
"""

import math
import os
import re
import select
import signal

from virtd import constants as c
from virtd import deadlines
from virtd.state import files

# Below this bound a call is being tried in a process that serves others (virtd.server: 50 ms), and is done again in
# a child of its own if the try is given up.
_TRIAL = 1.0  # seconds
# A line of /proc/self/mountinfo (proc(5)) that is of a file system on a server, or of a process that may stop.
_REMOTE = re.compile(
    rb" - (?:nfs4?|cifs|smb3|smbfs|9p|virtiofs|ceph|glusterfs|afs|ocfs2|gfs2|lustre|beegfs|gpfs|davfs|fuse[^ ]*) "
)


def avoid(path: str) -> None:
    """Do not go on with a path that may hang, if this process is one that must not.

    Args:
        path: what is going to be looked at.

    Raises:
        DeadlineExceeded: the path is on a server, and this is only a try.
    """
    if deadlines.remaining(math.inf) < _TRIAL and remote(path):
        raise deadlines.DeadlineExceeded(f"'{path}' is on a remote file system and takes a process of its own")


def check(path: str, what: str) -> None:
    """Wait until a path answers, if it is one that may hang; another process asks it, which can be left alone.

    For calls that change something and so must not be killed in the middle: none begins where nothing answers.

    Args:
        path: a directory.
        what: it is for, for the message.

    Raises:
        DeadlineExceeded: it does not answer.
    """
    if not remote(path):
        return
    bound = deadlines.remaining(deadlines.PATIENCE)
    pid = os.fork()
    if not pid:
        try:
            os.statvfs(path)
        finally:
            os._exit(0)  # that it answers is all that counts, not what
    descriptor = os.pidfd_open(pid)
    try:
        answered = deadlines.readable(descriptor, bound)
    finally:
        os.close(descriptor)
    if not answered:
        # Nobody can tell when it will end; until then it does no harm.
        os.kill(pid, signal.SIGKILL)
        raise deadlines.DeadlineExceeded(f"{what}: '{path}' did not answer in {bound:.0f} s", domain=c.VIR_FROM_STORAGE)
    os.waitpid(pid, 0)


def remote(path: str) -> bool:
    """Whether a path lies on a server, as the list of mounts says; the path itself is not touched."""
    mounts = _mounts.content()
    if _REMOTE.search(mounts) is None:
        return False
    length, found = -1, False
    for line in mounts.splitlines():
        mount = line.split(b" ", 5)[4].decode("unicode_escape")
        # Later lines are mounted over earlier ones.
        if len(mount) >= length and (path == mount or path.startswith(mount.rstrip("/") + "/")):
            length, found = len(mount), _REMOTE.search(line) is not None
    return found


class _Mounts:
    """The list of mounts, read again when the kernel says that it is another one: that takes longer than a call."""

    def __init__(self) -> None:
        self._owner = 0
        self._poll: select.poll | None = None
        self._content = b""

    def content(self) -> bytes:
        """The list as it is now."""
        if self._owner != os.getpid():
            # What the kernel has told is noted with the open file, which a parent and its child would share.
            self._owner = os.getpid()
            self._descriptor = os.open("/proc/self/mountinfo", os.O_RDONLY | os.O_CLOEXEC)
            files.LASTING.add(self._descriptor)
            self._poll = select.poll()
            self._poll.register(self._descriptor, select.POLLPRI)
            self._content = self._read()
        assert self._poll is not None
        while self._poll.poll(0):
            self._content = self._read()
        return self._content

    def _read(self) -> bytes:
        os.lseek(self._descriptor, 0, os.SEEK_SET)
        chunks = []
        while chunk := os.read(self._descriptor, 1 << 16):
            chunks.append(chunk)
        return b"".join(chunks)


_mounts = _Mounts()
