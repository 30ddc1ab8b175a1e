"""Domain XML for the guests of tests/guests. Everything is as a user would write it; nothing here is filled in for
virtd.
"""

from __future__ import annotations

from pathlib import Path
from xml.sax.saxutils import escape

from tests.guests.linux import Guest

__all__ = ["boot_domain", "domain", "linux_domain"]


def domain(
    name: str,
    *,
    uuid: str | None = None,
    machine: str = "pc",
    memory_mib: int = 32,
    boot: str = "<boot dev='hd'/>",
    head: str = "",
    devices: str = "",
    kind: str = "qemu",
) -> str:
    """A domain of one vCPU with a serial console. `head` goes before <devices>, `devices` into it, `boot` into <os>."""
    identity = f"<uuid>{uuid}</uuid>" if uuid else ""
    return f"""<domain type='{kind}'>
  <name>{escape(name)}</name>
  {identity}
  <memory unit='MiB'>{memory_mib}</memory>
  <vcpu>1</vcpu>
  <os><type arch='x86_64' machine='{machine}'>hvm</type>{boot}</os>
  <features><acpi/><apic/></features>
  {head}
  <devices>
    <serial type='pty'/>
    {devices}
  </devices>
</domain>
"""


def boot_domain(
    name: str,
    disk: Path,
    *,
    uuid: str | None = None,
    machine: str = "pc",
    bus: str = "virtio",
    head: str = "",
    devices: str = "",
) -> str:
    """A domain for the guest of tests/guests/bootsector.py, whose disk image is `disk`. It has a pvpanic device
    (PANIC).
    """
    target = {"virtio": "vda", "ide": "hda", "sata": "sda", "scsi": "sda"}[bus]
    return domain(
        name,
        uuid=uuid,
        machine=machine,
        head=head,
        devices=f"""<disk type='file' device='disk'>
      <driver name='qemu' type='raw'/>
      <source file='{escape(str(disk))}'/>
      <target dev='{target}' bus='{bus}'/>
    </disk>
    <panic model='isa'/>
    {devices}""",
    )


def linux_domain(
    name: str,
    guest: Guest,
    *options: str,
    uuid: str | None = None,
    machine: str = "pc",
    memory_mib: int = 192,
    head: str = "",
    devices: str = "",
) -> str:
    """A domain for the Linux guest of tests/guests/linux.py; `options` go to its kernel's command line."""
    return domain(
        name,
        uuid=uuid,
        machine=machine,
        memory_mib=memory_mib,
        boot=f"""
    <kernel>{escape(str(guest.kernel))}</kernel>
    <initrd>{escape(str(guest.initrd))}</initrd>
    <cmdline>{escape(guest.command_line(*options))}</cmdline>
  """,
        head=head,
        devices=devices,
    )
