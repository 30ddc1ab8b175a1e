"""inotify(7), as far as virtd needs it: a descriptor that becomes readable when a directory changes.

What changed is not looked at; whoever is woken looks for itself. ctypes is imported when the first watch is made
(2 ms), which most processes never do.
"""

import os

from virtd.state.files import os_error

IN_MODIFY = 0x00000002
IN_CLOSE_WRITE = 0x00000008
IN_MOVED_TO = 0x00000080
IN_CREATE = 0x00000100
IN_DELETE = 0x00000200


class Watch:
    """A watch on one directory."""

    def __init__(self, directory: str, mask: int) -> None:
        """
        Args:
            directory: the directory watched.
            mask: what counts as a change, IN_* joined by |.

        Raises:
            VirtError: VIR_ERR_SYSTEM_ERROR, also when the system's limit of watches is reached.
        """
        import ctypes

        libc = ctypes.CDLL(None, use_errno=True)
        self._descriptor: int = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self._descriptor < 0:
            error = OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
            raise os_error(error, "cannot watch for events (limit: fs.inotify.max_user_instances)")
        if libc.inotify_add_watch(self._descriptor, os.fsencode(directory), mask) < 0:
            error = OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
            self.close()
            raise os_error(error, f"cannot watch '{directory}'")

    def fileno(self) -> int:
        return self._descriptor

    def clear(self) -> None:
        """Forget the changes so far: the descriptor is readable again after the next one."""
        try:
            while len(os.read(self._descriptor, 16384)) > 8192:
                pass
        except BlockingIOError:
            pass

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
