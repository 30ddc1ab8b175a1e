"""What virsh says to commands about one guest and about the node.

python3 -m tests.e2e.commands URI >tests/e2e/expected/commands.json

runs them on a server (libvirtd 9.0.0, when the file was written) and prints {command: what virsh said}. Of commands
whose answers are measured, the numbers are left out. {guest} and {disk} stand for the guest's name and its image.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from tests.guests.bootsector import write_boot_disk

GUEST: Final = "commands"
XML: Final = """<domain type='qemu'><name>{guest}</name><uuid>11111111-2222-4333-8444-555555555555</uuid>
  <memory unit='MiB'>32</memory><vcpu current='1'>2</vcpu><iothreads>1</iothreads>
  <os><type arch='x86_64' machine='pc'>hvm</type><boot dev='hd'/></os><features><acpi/></features>
  <devices><disk type='file'><driver name='qemu' type='raw'/><source file='{disk}'/>
      <target dev='vda' bus='virtio'/></disk>
    <interface type='user'><mac address='52:54:00:00:00:01'/><model type='virtio'/></interface><serial type='pty'/>
    <graphics type='vnc' socket='{directory}/vnc'/>
  </devices></domain>"""
# About the guest (its name follows the first word); "~" before what is measured, "@" before what the node is asked.
COMMANDS: Final = (
    "~domid", "domuuid", "domname", "domstate --reason", "~dominfo", "domcontrol", "~domblkinfo vda",
    "~domblkinfo --all",
    "domblklist --details", "~domblkstat vda", "~domblkstat vda --human", "domblkstat vdx", "domblkerror",
    "~dommemstat", "dommemstat --period 5", "dommemstat --period 0 --live", "domiflist", "domifaddr",
    "domifaddr --source agent", "domif-getlink 52:54:00:00:00:01", "domifstat nope",
    "~domstats --state --vcpu --balloon", "~domstats --block --interface --iothread --dirtyrate",
    "~domstats --cpu-total --perf --vm --memory",
    # CPUs
    "~vcpuinfo", "~vcpuinfo --pretty", "vcpucount", "vcpucount --live --active", "vcpucount --config --maximum",
    "vcpucount --guest", "~vcpupin", "vcpupin 0 0", "~vcpupin --vcpu 0", "vcpupin 9 0", "vcpupin 0 0 --config",
    "~emulatorpin", "emulatorpin 0", "~emulatorpin --config", "setvcpus 2 --live", "vcpucount --live --active",
    "setvcpus 1 --live", "setvcpus 9", "setvcpus 2 --config", "setvcpus 3 --config --maximum", "setvcpu 1 --enable",
    "setvcpu 1 --disable", "setvcpu 0 --disable", "~cpu-stats --total", "cpu-stats", "guestvcpus",
    # I/O threads
    "~iothreadinfo", "iothreadadd 3", "iothreadadd 3", "~iothreadinfo", "iothreadpin 3 0", "~iothreadinfo",
    "iothreadset 3 --poll-max-ns 1000", "iothreadset 3 --thread-pool-max 9", "iothreadset 3 --poll-grow 4 --config",
    "iothreaddel 3", "iothreaddel 3", "iothreadadd 4 --config", "~iothreadinfo --config", "iothreaddel 4 --config",
    # Memory
    "setmem 24M", "setmem 64M", "setmem 24M --config", "setmaxmem 64M", "setmaxmem 64M --config", "numatune",
    "numatune --mode strict", "numatune --mode strict --nodeset 0 --config", "numatune --config",
    "memtune --hard-limit 65536 --config", "memtune --config", "schedinfo --set cpu_shares=2048 --config",
    "schedinfo --config", "blkiotune --weight 200 --config", "blkiotune --config",
    # Disks and cards
    "blkdeviotune vda", "blkdeviotune vda --total-iops-sec 500", "blkdeviotune vda", "blkdeviotune vdx",
    "blkdeviotune vda --total-iops-sec 5 --read-iops-sec 5", "blkdeviotune vda --total-iops-sec 100 --config",
    "blkdeviotune vda --config", "blockresize vda 2M", "~domblkinfo vda --human", "blockresize vdx 2M",
    "domblkthreshold vda 100", "domblkthreshold vdx 100", "domiftune 52:54:00:00:00:01",
    "domiftune 52:54:00:00:00:01 --inbound 100,200,300", "domiftune 52:54:00:00:00:01 --inbound 100 --config",
    "domiftune nope",
    # Jobs and counters
    "domjobinfo", "domjobinfo --completed", "domjobabort", "~domdirtyrate-calc --seconds 1", "domlaunchsecinfo", "perf",
    "perf --enable cmt --config", "perf --config", "migrate-getmaxdowntime", "domhasmanagedsave",
    # The guest's words and keys
    "desc --title", "desc --title --new-desc hello", "desc --title", "desc --config", "metadata http://x/y",
    "metadata http://x/y --key k --set <a/>", "metadata http://x/y", "metadata http://x/y --remove",
    "set-lifecycle-action poweroff restart", "set-lifecycle-action reboot preserve", "send-key KEY_A",
    "send-key KEY_NOPE", "inject-nmi", "domtime", "domfsinfo", "domfstrim", "domfsfreeze", "guestinfo",
    "domhostname --source agent", "dompmsuspend mem", "dompmwakeup", "set-user-password root x",
    "get-user-sshkeys root", "guest-agent-timeout --timeout 3", "qemu-agent-command {}", "domdisplay", "vncdisplay",
    "qemu-monitor-command --hmp info status", '~qemu-monitor-command {"execute":"query-status"}',
    '~qemu-monitor-command --pretty {"execute":"query-nope"}', "~qemu-monitor-command x",
    "domrename other", "dommessages", "domsetlaunchsecstate", "autostart", "autostart --disable", "reset", "suspend",
    "domstate --reason", "resume", "resume", "managedsave-remove", "snapshot-list", "checkpoint-list",
    # The node
    "~@nodecpumap", "~@nodecpustats", "~@nodecpustats --percent", "~@nodememstats", "~@node-memory-tune", "~@freecell",
    "~@freecell --all", "~@freepages --cellno 0 --pagesize 2M", "@freepages --cellno 9 --pagesize 2M",
    "@freepages --cellno 0 --pagesize 3", "@allocpages 3 1", "@allocpages 4K 1", "@allocpages 2M 0 --cellno 9",
    "@nodesuspend mem 60", "@nodesuspend disk 60", "@nodesuspend nope 60", "@nodesevinfo", "@maxvcpus",
    "~@nodeinfo", "@domcapabilities --machine nope", "@domcapabilities --arch nope", "@cpu-models nope", "@sysinfo",
    "@node-memory-tune --shm-pages-to-scan 100",
)  # fmt: skip
# What some commands need of the host.
_NEEDS: Final = {
    "@sysinfo": lambda: not os.path.exists("/sys/firmware/dmi/tables/DMI"),
    "@node-memory-tune": lambda: os.path.exists("/sys/kernel/mm/ksm/merge_across_nodes"),
    "@freepages": lambda: os.path.exists("/sys/kernel/mm/hugepages/hugepages-2048kB"),
    "memtune": lambda: os.geteuid() == 0,
    "schedinfo": lambda: os.geteuid() == 0,
    "blkiotune": lambda: os.geteuid() == 0,
}
_PARTS: Final = re.compile(r"\S+")


def possible(command: str) -> bool:
    """Whether the host has what a command is about."""
    return _NEEDS.get(command.lstrip("~").partition(" ")[0], lambda: True)()


@contextmanager
def guest(virsh: Callable[..., Any]) -> Iterator[Path]:
    """The guest, running; gives the directory of its files."""
    with tempfile.TemporaryDirectory(dir="/tmp") as made:
        directory = Path(made)
        directory.chmod(0o777)
        disk = write_boot_disk(directory / "disk.img", then="serve")
        disk.chmod(0o666)
        file = directory / "guest.xml"
        file.write_text(XML.format(guest=GUEST, disk=disk, directory=directory))
        virsh("define", str(file))
        virsh("start", GUEST)
        try:
            yield directory
        finally:
            virsh("destroy", GUEST)
            virsh("undefine", GUEST)


def run(virsh: Callable[..., subprocess.CompletedProcess[str]], directory: Path, command: str) -> str:
    """What virsh says to a command: errors behind "!", spaces as one, measured numbers as N."""
    words = _PARTS.findall(command.lstrip("~@"))
    if "hmp" in command:
        words = [*words[:2], " ".join(words[2:])]
    done = virsh(words[0], *([] if "@" in command[:2] else [GUEST]), *words[1:])
    said = done.stdout if done.returncode == 0 else "!" + re.sub("^error: ", "", done.stderr, flags=re.MULTILINE)
    said = said.replace(str(directory), "{directory}")
    if command.startswith("~"):
        said = re.sub(r"\d[\d.,-]*", "N", said)
        said = re.sub(r"(CPU (?:map|Affinity):\s+)[y-]+", r"\1Y", said)
    lines = [re.sub(r"\s+", " ", line).strip() for line in said.splitlines()]
    return "\n".join(line for line in lines if line)


def main(uri: str) -> None:
    def virsh(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["virsh", "-q", "-c", uri, *words], capture_output=True, text=True, check=False, timeout=60
        )

    with guest(virsh) as directory:
        answers = [(command, run(virsh, directory, command)) for command in COMMANDS]
    print("[", ",\n".join(json.dumps(answer) for answer in answers), "]", sep="\n")


if __name__ == "__main__":
    os.environ["LC_ALL"] = "C.UTF-8"
    main(*sys.argv[1:])
