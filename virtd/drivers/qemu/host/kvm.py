"""Whether KVM on this host really runs a guest: found out by running one, within a bound, and remembered.

That /dev/kvm exists says little. In a nested machine it may hang, or it may interpret each instruction, a thousand
times slower than a processor: then nothing that starts with it ever boots. So a process of its own makes a virtual CPU
in 64-bit mode and lets it count; a host's own processor is done within milliseconds.

The process may hang in the kernel where no signal reaches it. Nobody waits for it unboundedly, it is nobody's
child, and it holds none of our descriptors.

This module knows no QEMU.
"""

import fcntl
import json
import mmap
import os
import signal
import socket
import struct
from typing import NamedTuple, NoReturn

from setproctitle import setproctitle

from virtd import constants as c
from virtd import deadlines
from virtd.drivers.qemu import shape
from virtd.state import files, locks

SECONDS = 2.0
DEVICE = "/dev/kvm"
# A store and a decrement each: 2 ms on a processor, 5 s where each instruction is interpreted.
ROUNDS = 5_000_000

# linux/kvm.h
_GET_API_VERSION = 0xAE00
_CREATE_VM = 0xAE01
_GET_VCPU_MMAP_SIZE = 0xAE04
_GET_SUPPORTED_CPUID = 0xC008AE05
_CREATE_VCPU = 0xAE41
_SET_USER_MEMORY_REGION = 0x4020AE46
_RUN = 0xAE80
_SET_REGS = 0x4090AE82
_GET_SREGS = 0x8138AE83
_SET_SREGS = 0x4138AE84
_SET_CPUID2 = 0x4008AE90
_API_VERSION = 12
_EXIT_HLT = 5


class Kvm(NamedTuple):
    """Whether KVM can be used by this process, and if not, why."""

    usable: bool
    reason: str


def check(cache: str, *, device: str = DEVICE, rounds: int = ROUNDS) -> Kvm:
    """Find out whether KVM runs a guest here.

    The answer is kept in the cache directory until the next boot, or until the device is another one.

    Args:
        cache: an instance's cache directory.
        device: the KVM device.
        rounds: how far the virtual CPU counts.

    Raises:
        DeadlineExceeded: the bound of the call, which is tighter than SECONDS, ended the search.
        VirtError: the cache cannot be written.
    """
    try:
        opened = os.open(device, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return Kvm(False, f"{device} does not exist")
    except OSError as error:
        return Kvm(False, f"{device} cannot be opened: {error.strerror}")
    try:
        key = _identity(opened)
    finally:
        os.close(opened)
    path = f"{cache}/kvm.json"
    if (known := _recall(path, key)) is not None:
        return known
    with locks.held(f"{path}.lock", "KVM check", what="lock of the KVM check"):
        if (known := _recall(path, key)) is not None:
            return known
        found = _try(device, rounds)
        note = {"identity": key, "usable": found.usable, "reason": found.reason}
        files.replace(path, json.dumps(note).encode(), durable=False)
        return found


def identity(device: str = DEVICE) -> list[int | str]:
    """What a statement about KVM on this host depends on; empty where there is no KVM."""
    try:
        opened = os.open(device, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return []
    try:
        return _identity(opened)
    finally:
        os.close(opened)


def _identity(opened: int) -> list[int | str]:
    found = os.fstat(opened)
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        boot = file.read().strip()
    modules = sorted(name for name in os.listdir("/sys/module") if name.startswith("kvm"))
    return [boot, os.uname().release, found.st_rdev, found.st_dev, found.st_ino, *modules]


def _recall(path: str, key: list[int | str]) -> Kvm | None:
    content = files.read(path)
    try:
        note = shape.as_table(json.loads(content or b""), path)
        if note.get("identity") == key:
            return Kvm(shape.truth(note, "usable"), shape.text(note, "reason"))
    except (ValueError, shape.ShapeError):
        pass  # of an older form, or no file at all: it is found out again
    return None


def _try(device: str, rounds: int) -> Kvm:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        middle = os.fork()
        if middle == 0:
            # The one who tries is nobody's child: its parent ends at once, and init will reap it some day.
            if os.fork() == 0:
                _candidate(theirs.fileno(), device, rounds)
            os._exit(0)
        os.waitpid(middle, 0)
        theirs.close()
        seconds = deadlines.remaining(SECONDS)
        process = -1
        with deadlines.limit(seconds):
            try:
                if deadlines.readable(ours.fileno(), seconds):
                    _, passed, _, _ = socket.recv_fds(ours, 1, 1)
                    process = passed[0] if passed else -1
                if process >= 0 and deadlines.readable(ours.fileno(), seconds):
                    said = ours.recv(4096).decode(errors="replace")
                    if said == "+":
                        return Kvm(True, "")
                    return Kvm(
                        False, f"{device} exists but did not run a vCPU: {said or 'the process that tried ended'}"
                    )
                if seconds < SECONDS:
                    raise deadlines.DeadlineExceeded("KVM did not run a vCPU yet", domain=c.VIR_FROM_QEMU)
                return Kvm(False, f"{device} exists but did not run a vCPU within {SECONDS:.0f} s")
            finally:
                if process >= 0:
                    _kill(process)


def _kill(process: int) -> None:
    try:
        signal.pidfd_send_signal(process, signal.SIGKILL)
    except ProcessLookupError:
        pass
    os.close(process)


def _candidate(answers: int, device: str, rounds: int) -> NoReturn:
    """Run a vCPU and say how it went; if it hangs, then with nothing of ours in its hands."""
    try:
        os.closerange(0, answers)
        os.closerange(answers + 1, os.sysconf("SC_OPEN_MAX"))
        for number in (signal.SIGALRM, signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGPIPE):
            signal.signal(number, signal.SIG_DFL)
        setproctitle("virtd: KVM check")
        link = socket.socket(fileno=answers)
        socket.send_fds(link, [b"p"], [os.pidfd_open(os.getpid())])
        try:
            said = _run(device, rounds)
        except (OSError, ValueError) as error:
            said = str(error)
        link.sendall(said.encode())
    finally:
        os._exit(0)


def _run(device: str, rounds: int) -> str:
    """Let a vCPU count down in 64-bit mode, then halt; returns '+', or what came instead."""
    import ctypes  # needed in the candidate only

    kvm = os.open(device, os.O_RDWR)
    version = fcntl.ioctl(kvm, _GET_API_VERSION, 0)
    if version != _API_VERSION:
        return f"its interface has version {version}"
    machine = fcntl.ioctl(kvm, _CREATE_VM, 0)
    if os.uname().machine != "x86_64":
        return "+"
    memory = mmap.mmap(-1, 0x10000)
    # One page of 2 MiB mapped onto itself: level 4 at 0x1000, level 3 at 0x2000, level 2 at 0x3000.
    for place, entry in ((0x1000, 0x2003), (0x2000, 0x3003), (0x3000, 0x83)):
        struct.pack_into("<Q", memory, place, entry)
    # mov ecx, rounds; again: mov [0x8000], rcx; dec rcx; jnz again; hlt
    code = b"\xb9" + struct.pack("<I", rounds) + bytes.fromhex("48890c25 00800000 48ffc9 75f3 f4")
    memory[0x4000 : 0x4000 + len(code)] = code
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    fcntl.ioctl(machine, _SET_USER_MEMORY_REGION, struct.pack("=IIQQQ", 0, 0, 0, len(memory), address))
    processor = fcntl.ioctl(machine, _CREATE_VCPU, 0)
    features = bytearray(struct.pack("=II", 256, 0) + bytes(256 * 40))
    fcntl.ioctl(kvm, _GET_SUPPORTED_CPUID, features)
    fcntl.ioctl(processor, _SET_CPUID2, features)
    fcntl.ioctl(processor, _SET_SREGS, _long_mode(processor))
    fcntl.ioctl(processor, _SET_REGS, struct.pack("=18Q", *[0] * 16, 0x4000, 2))
    with mmap.mmap(processor, fcntl.ioctl(kvm, _GET_VCPU_MMAP_SIZE, 0)) as state:
        fcntl.ioctl(processor, _RUN, 0)
        (reason,) = struct.unpack_from("=I", state, 8)
    if reason != _EXIT_HLT or struct.unpack_from("<Q", memory, 0x8000) != (1,):
        return f"it ended with reason {reason}"
    return "+"


def _long_mode(processor: int) -> bytearray:
    """struct kvm_sregs of a processor in 64-bit mode with flat segments."""
    registers = bytearray(312)
    fcntl.ioctl(processor, _GET_SREGS, registers)
    # base, limit, selector, type, present, dpl, db, s, l, g, avl, unusable, padding
    segment = struct.Struct("=QIH9Bx")
    code = segment.pack(0, 0xFFFFFFFF, 8, 11, 1, 0, 0, 1, 1, 1, 0, 0)
    data = segment.pack(0, 0xFFFFFFFF, 16, 3, 1, 0, 1, 1, 0, 1, 0, 0)
    registers[: 6 * segment.size] = code + data * 5
    # Behind eight segments and two tables: cr0 (PG, ET, PE), cr2, cr3, cr4 (PAE), cr8, efer (LMA, LME).
    struct.pack_into("=6Q", registers, 8 * segment.size + 32, 0x80000011, 0, 0x1000, 0x20, 0, 0x500)
    return registers
