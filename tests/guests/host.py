"""This machine once more, as a guest with a kernel of its own: its files are there (virtiofs), and what is written to
them goes to memory. So tests can use what of the kernel this machine does not have or does not let them touch, as
root, and nothing of it stays.

    status, output = run(script, directory)

Booting takes about 10 s under TCG. This module knows nothing of virtd.
"""

from __future__ import annotations

import re
import socket
import subprocess
import sys
from pathlib import Path
from typing import Final

from tests.guests import linux

__all__ = ["find_virtiofsd", "run"]

# QEMU's own, and the one that followed it; they take other options.
_VIRTIOFSD: Final = {
    "/usr/lib/qemu/virtiofsd": ("-o", "source=/", "-o", "sandbox=chroot", "-o", "cache=always"),
    "/usr/libexec/virtiofsd": ("--shared-dir", "/", "--sandbox", "chroot", "--cache", "always"),
}
_PROLOGUE: Final = """
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root
mount -t devtmpfs devtmpfs /dev 2>/dev/null
mkdir -p /dev/shm && mount -t tmpfs shm /dev/shm
ip link set lo up
/lib/systemd/systemd-udevd --daemon && udevadm settle
"""
_EPILOGUE: Final = """
echo "virtd: status $?"
echo o >/proc/sysrq-trigger
exec sleep 60
"""


def find_virtiofsd() -> str:
    """The server of this machine's files. Raises FileNotFoundError."""
    for path in _VIRTIOFSD:
        if Path(path).exists():
            return path
    raise FileNotFoundError("virtiofsd")


def run(script: str, directory: Path, *, memory_mib: int = 1024, seconds: float = 600) -> tuple[int, str]:
    """Boot the guest, run a shell script in it as root, and power it off.

    Args:
        script: the script's text; its last command's status counts.
        directory: for the script and the console's output.
        memory_mib: its memory.
        seconds: how long it may take.

    Returns:
        The script's status, -1 if it did not come to an end, and all that appeared on the console.
    """
    guest = linux.build()
    (directory / "script").write_text(f"{_PROLOGUE}{script}{_EPILOGUE}")
    console = directory / "console"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(directory / "files"))
        listening.listen()
        program = find_virtiofsd()
        command = [program, f"--fd={listening.fileno()}", *_VIRTIOFSD[program]]
        files = subprocess.Popen(command, pass_fds=[listening.fileno()], stderr=subprocess.DEVNULL)
    command = [
        "qemu-system-x86_64", "-machine", "q35,accel=tcg,memory-backend=memory", "-cpu", "max", "-nodefaults",
        "-m", str(memory_mib), "-object", f"memory-backend-memfd,id=memory,size={memory_mib}M,share=on",
        "-display", "none", "-no-reboot", "-serial", f"file:{console}",
        "-chardev", f"socket,id=files,path={directory}/files", "-device", "vhost-user-fs-pci,chardev=files,tag=host",
        "-kernel", str(guest.kernel), "-initrd", str(guest.initrd),
        "-append", guest.command_line("mitigations=off", f"virtd.host={directory}/script"),
    ]  # fmt: skip
    try:
        subprocess.run(command, stdin=subprocess.DEVNULL, timeout=seconds, check=True)
    except subprocess.TimeoutExpired:
        print(f"the guest did not end in {seconds} s", file=sys.stderr)
    finally:
        files.kill()
        files.wait()
    output = console.read_text(errors="replace")
    match = re.search(r"^virtd: status (\d+)", output, re.MULTILINE)
    return -1 if match is None else int(match[1]), output
