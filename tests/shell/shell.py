"""Running virtsh as a user does, and files for it to read."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

__all__ = ["VIRTSH", "run", "write_documents"]

REPOSITORY = Path(__file__).parents[2]
VIRTSH = [sys.executable, "-m", "virtd.shell.main"]

# The files that the conversations name.
_DOCUMENTS = {
    "net.xml": """<network><name>nn</name><uuid>11111111-2222-3333-4444-555555555577</uuid><bridge name='virbr9'/>
<ip address='10.9.9.1' netmask='255.255.255.0'><dhcp><range start='10.9.9.2' end='10.9.9.9'/></dhcp></ip></network>
""",
    "vol.xml": """<volume><name>v2</name><capacity unit='MiB'>5</capacity><target><format type='raw'/></target></volume>
""",
    "snap.xml": "<domainsnapshot><name>sf</name></domainsnapshot>\n",
    "chk.xml": "<domaincheckpoint><name>cf</name></domaincheckpoint>\n",
    "test.xml": """<domain type='test'><name>test</name><uuid>6695eb01-f6a4-8304-79aa-97f2502e193f</uuid>
<memory>8388608</memory><currentMemory>2097152</currentMemory><vcpu>2</vcpu><os><type>hvm</type></os></domain>
""",
    "new.xml": """<domain type='qemu'><name>n</name><memory unit='MiB'>16</memory><os>
<type arch='x86_64' machine='pc'>hvm</type></os><devices><serial type='pty'/><disk type='file'><driver name='qemu'
type='raw'/><source file='@DIR@/n.img'/><target dev='vda' bus='virtio'/></disk></devices></domain>
""",
    "disk.xml": """<disk type='file'><driver name='qemu' type='raw'/><source file='@DIR@/m.img'/>
<target dev='vdb' bus='virtio'/></disk>
""",
    "cpu.xml": "<cpu><arch>x86_64</arch><model>qemu64</model></cpu>\n",
    "bad.xml": "<domain type='qemu'><name>zz</name>\n",
    "pool.xml": """<pool type='dir'><name>px</name><uuid>11111111-2222-3333-4444-555555555579</uuid>
<target><path>@DIR@/px</path></target></pool>
""",
    "sec.xml": """<secret ephemeral='no' private='no'><uuid>11111111-2222-3333-4444-555555555578</uuid>
<usage type='ceph'><name>cc</name></usage></secret>
""",
}


def write_documents(directory: Path) -> None:
    """Write the files that the conversations name."""
    for name, text in _DOCUMENTS.items():
        (directory / name).write_text(text.replace("@DIR@", str(directory)))


def run(
    *args: str, stdin: str = "", cwd: Path | None = None, env: Mapping[str, str] | None = None, program: str = ""
) -> subprocess.CompletedProcess[str]:
    """Run virtsh, or another program with the same arguments, with nothing of the tester's own environment about it."""
    path = os.pathsep.join(filter(None, [str(REPOSITORY), os.environ.get("PYTHONPATH")]))
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("VIRT", "LIBVIRT", "VIRSH"))}
    return subprocess.run(
        [*([program] if program else VIRTSH), *args],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=60,
        cwd=cwd,
        env={**clean, "PYTHONPATH": path, "LC_ALL": "C.UTF-8", "TZ": "UTC", **(env or {})},
        check=False,
    )
