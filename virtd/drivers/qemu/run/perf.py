"""The host's performance counters of one QEMU (perf_event_open(2)), held open by its supervisor as long as it runs.

Like libvirt's they count QEMU's first thread, and all threads that are started after them.
"""

import fcntl
import os
import struct

from virtd import constants as c
from virtd.errors import VirtError
from virtd.state import files

_HARDWARE, _SOFTWARE = 0, 1
# linux/perf_event.h: what the kernel counts under libvirt's names. Those of Intel's cache monitoring (cmt, mbmt, mbml)
# no kernel has any more.
EVENTS = {
    "cpu_cycles": (_HARDWARE, 0),
    "instructions": (_HARDWARE, 1),
    "cache_references": (_HARDWARE, 2),
    "cache_misses": (_HARDWARE, 3),
    "branch_instructions": (_HARDWARE, 4),
    "branch_misses": (_HARDWARE, 5),
    "bus_cycles": (_HARDWARE, 6),
    "stalled_cycles_frontend": (_HARDWARE, 7),
    "stalled_cycles_backend": (_HARDWARE, 8),
    "ref_cpu_cycles": (_HARDWARE, 9),
    "cpu_clock": (_SOFTWARE, 0),
    "task_clock": (_SOFTWARE, 1),
    "page_faults": (_SOFTWARE, 2),
    "context_switches": (_SOFTWARE, 3),
    "cpu_migrations": (_SOFTWARE, 4),
    "page_faults_min": (_SOFTWARE, 5),
    "page_faults_maj": (_SOFTWARE, 6),
    "alignment_faults": (_SOFTWARE, 7),
    "emulation_faults": (_SOFTWARE, 8),
}
# struct perf_event_attr in its first form: type, size, config, sample_period, sample_type, read_format, flags, and
# twelve bytes that are of no use here.
_ATTRIBUTES = struct.Struct("=IIQQQQQII8x")
_DISABLED, _INHERIT = 1 << 0, 1 << 1
_CLOSE_ON_EXEC = 1 << 3
_ENABLE = 0x2400  # ioctl PERF_EVENT_IOC_ENABLE
_CALLS = {"x86_64": 298, "aarch64": 241, "ppc64le": 319, "s390x": 331}


class Counters:
    """Counters of one process.

    Args:
        pid: the process.
    """

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._open: dict[str, int] = {}

    def enable(self, name: str) -> None:
        """Begin to count, if that is not done already.

        Raises:
            VirtError: VIR_ERR_ARGUMENT_UNSUPPORTED, nobody counts this; VIR_ERR_SYSTEM_ERROR, the kernel does not.
        """
        if name in self._open:
            return
        if name not in EVENTS:
            text = f"unable to enable host cpu perf event for {name}"
            raise VirtError(c.VIR_ERR_ARGUMENT_UNSUPPORTED, text, domain=c.VIR_FROM_PERF)
        try:
            descriptor = _open_event(self._pid, *EVENTS[name])
            self._open[name] = descriptor
            fcntl.ioctl(descriptor, _ENABLE, 0)
        except OSError as error:
            failure = files.os_error(error, f"unable to open host cpu perf event for {name}")
            failure.domain = c.VIR_FROM_PERF
            raise failure from None

    def disable(self, name: str) -> None:
        """Count no more."""
        descriptor = self._open.pop(name, None)
        if descriptor is not None:
            os.close(descriptor)

    def read(self) -> dict[str, int]:
        """What has been counted so far."""
        return {name: int.from_bytes(os.read(descriptor, 8), "little") for name, descriptor in self._open.items()}


def _open_event(pid: int, kind: int, config: int) -> int:
    import ctypes  # few guests are counted

    number = _CALLS.get(os.uname().machine)
    if number is None:
        raise OSError(38, os.strerror(38))  # ENOSYS
    attributes = _ATTRIBUTES.pack(kind, _ATTRIBUTES.size, config, 0, 0, 0, _DISABLED | _INHERIT, 0, 0)
    library = ctypes.CDLL(None, use_errno=True)
    descriptor: int = library.syscall(number, ctypes.c_char_p(attributes), pid, -1, -1, _CLOSE_ON_EXEC)
    if descriptor < 0:
        problem = ctypes.get_errno()
        raise OSError(problem, os.strerror(problem))
    return descriptor
