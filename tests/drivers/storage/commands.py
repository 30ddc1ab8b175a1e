"""What virsh says to commands about storage pools of all types.

python3 -m tests.drivers.storage.commands URI >tests/drivers/storage/expected/pools.json

runs them on a server (libvirtd 9.0.0 with all of Debian's storage back ends, as root, when the file was written) and
prints [command, what virsh said]. {dir} is a directory, {one} a block device with nothing on it. Left out is what
differs from run to run (UUIDs, sizes of file systems), and of the tools' own words all but which tool failed how.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Final

_TARGET: Final = "--target {dir}/mnt"
_SECRET: Final = "0f0e0d0c-0b0a-4909-8807-060504030201"
# How a pool of each type is defined.
DEFINITIONS: Final = (
    "dir " + _TARGET,
    "fs --source-dev {one} --source-format ext4 " + _TARGET,
    "netfs --source-host h.invalid --source-path /x/ --source-format nfs --source-protocol-ver 4.1 " + _TARGET,
    "netfs --source-host h.invalid --source-path /x --source-format cifs " + _TARGET,
    "netfs --source-host h.invalid --source-path /x " + _TARGET,
    "logical --source-name nonesuch --source-dev /dev/nonesuch --target /dev/elsewhere",
    "logical",
    "disk --source-dev /dev/nonesuch --source-format gpt --target /dev",
    "iscsi --source-host h.invalid --source-dev iqn.a --source-initiator iqn.b --auth-type chap --auth-username u "
    "--secret-usage nonesuch --target /dev/disk/by-path",
    "iscsi-direct --source-host h.invalid --source-dev iqn.a --source-initiator iqn.b --auth-type chap "
    f"--auth-username u --secret-uuid {_SECRET}",
    "scsi --adapter-name scsi_host99 --target /dev/disk/by-path",
    "scsi --adapter-wwnn 2000000012341234 --adapter-wwpn 1000000012341234 --target /dev/disk/by-path",
    "mpath --target /dev/mapper",
    f"rbd --source-host h.invalid --source-name r --auth-type ceph --auth-username admin --secret-uuid {_SECRET}",
    "gluster --source-host h.invalid --source-name v/w --source-path x",
    "zfs --source-name tank --source-dev /dev/nonesuch",
)
_WRONG: Final = (
    "nonesuch " + _TARGET,
    "sheepdog --source-host h --source-name n",
    "dir",
    "fs " + _TARGET,
    "fs --source-dev /dev/a --source-format zz " + _TARGET,
    "netfs --source-host h " + _TARGET,
    "netfs --source-host h --source-path /x --source-format glusterfs --source-protocol-ver 4 " + _TARGET,
    "logical --source-format zz",
    "disk --target /dev",
    "disk --source-dev /dev/a",
    "iscsi --target /dev",
    "iscsi-direct --source-host h --source-dev iqn.a",
    "scsi --target /dev",
    "mpath",
    "rbd --source-name n",
    "rbd --source-host h",
    "gluster --source-name n",
)
_TWICE: Final = tuple(
    (first, second)
    for first, second in (
        ("dir --target {dir}/a", "dir --target {dir}/a/"),
        ("dir --target {dir}/a", "fs --source-dev /dev/a --target {dir}/a"),
        ("disk --source-dev /dev/a --target /dev", "logical --source-name v --source-dev /dev/a"),
        ("zfs --source-name v --source-dev /dev/a", "disk --source-dev /dev/a --target /dev"),
        ("netfs --source-host h --source-path /x " + _TARGET, "netfs --source-host h --source-path /x --target /y"),
        ("netfs --source-host h --source-path /x " + _TARGET, "netfs --source-host i --source-path /x --target /y"),
        ("gluster --source-host h --source-name v", "gluster --source-host h --source-name v"),
        ("gluster --source-host h --source-name v", "gluster --source-host h --source-name v --source-path /x"),
        ("iscsi --source-host h --source-dev a --target /dev", "iscsi --source-host h --source-dev a --target /dev"),
        ("scsi --adapter-name host9 --target /dev", "scsi --adapter-name scsi_host9 --target /dev"),
        ("mpath --target /dev/mapper", "mpath --target /dev"),
        ("rbd --source-host h --source-name v", "rbd --source-host h --source-name v"),
    )
)
_LIFE: Final = (
    "pool-list --all", "pool-define-as p dir " + _TARGET, "pool-start p", "pool-build p", "pool-start p",
    "pool-start p", "pool-build p", "pool-delete p", "pool-undefine p", "pool-define-as p dir --target {dir}/other",
    "pool-autostart p", "pool-list", "pool-list --inactive", "pool-list --all --autostart", "pool-list --no-autostart",
    "pool-list --persistent", "pool-list --transient --all", "pool-list --type dir", "pool-list --type fs,disk --all",
    "pool-list --type zz", "pool-autostart p --disable", "pool-refresh p", "pool-info p", "pool-dumpxml p",
    "pool-dumpxml p --inactive", "vol-create-as p v 1M", "pool-delete p", "pool-destroy p", "pool-destroy p",
    "pool-refresh p", "pool-delete p", "vol-list p", "pool-info p",  "pool-edit p", "pool-undefine p",
    "pool-undefine p", "pool-info p", "pool-name nonesuch", "pool-uuid p", "pool-create-as t dir " + _TARGET,
    "pool-create-as t dir --target {dir}/t", "pool-create-as t dir --target {dir}/t --build", "pool-autostart t",
    "pool-list --transient", "pool-undefine t", "pool-destroy t", "pool-list --all", "pool-event --list",
    "pool-event --event lifecycle --timeout 1", "pool-event --event zz", "pool-capabilities",
    "pool-build p --overwrite --no-overwrite",
    # A file system on a device
    "pool-define-as f fs --source-dev {one} --source-format ext4 --target {dir}/fs", "pool-build f", "pool-start f",
    "pool-build f --no-overwrite", "pool-build f --no-overwrite", "pool-build f --overwrite --no-overwrite",
    "pool-build f --overwrite", "pool-start f", "vol-list f", "vol-create-as f v 1M", "pool-destroy f",
    "pool-start f --build --no-overwrite", "pool-start f --build", "vol-list f", "pool-destroy f", "pool-delete f",
    "pool-undefine f",
    # A disk
    "pool-define-as d disk --source-dev {one} --source-format gpt --target /dev", "pool-start d", "pool-build d",
    "pool-build d --no-overwrite", "pool-build d --overwrite --no-overwrite", "pool-build d --overwrite",
    "pool-start d", "pool-dumpxml d", "pool-refresh d", "vol-list d", "vol-create-as d {onename}p1 8M",
    "vol-list d", "vol-create-as d {onename}p1 8M", "vol-create-as d {onename}p2 999M", "vol-info {onename}p1 d",
    "vol-path {onename}p1 d", "vol-key {onename}p1 d", "vol-pool {one}p1", "vol-resize {onename}p1 16M --pool d",
    "vol-wipe {onename}p1 d", "pool-destroy d",
    "pool-undefine d", "pool-define-as d disk --source-dev {one} --source-format dos --target /dev", "pool-start d",
    "pool-build d", "pool-build d --overwrite", "pool-start d", "pool-dumpxml d --inactive", "vol-list d",
    "pool-destroy d", "pool-delete d", "pool-start d", "pool-undefine d",
    # A volume group
    "pool-define-as virtd-test logical --source-dev {one}", "pool-build virtd-test --overwrite --no-overwrite",
    "pool-build virtd-test", "pool-build virtd-test", "pool-build virtd-test --no-overwrite", "pool-start virtd-test",
    "pool-dumpxml virtd-test", "vol-list virtd-test", "vol-create-as virtd-test a 0", "vol-info nonesuch virtd-test",
    "pool-refresh virtd-test", "pool-destroy virtd-test", "pool-delete virtd-test", "pool-delete virtd-test",
    "pool-start virtd-test", "pool-undefine virtd-test",
)  # fmt: skip
_SOURCES: Final = (
    "dir",
    "fs",
    "netfs",
    "disk",
    "iscsi",
    "iscsi-direct",
    "scsi",
    "mpath",
    "rbd",
    "sheepdog",
    "gluster",
    "zfs",
)


def commands() -> list[str]:
    """All of them, in order."""
    found = list(_LIFE)
    for definition in DEFINITIONS:
        kind = definition.split()[0]
        found += [f"pool-define-as p {definition}", "pool-dumpxml p", f"pool-list --all --type {kind}", "pool-info p"]
        if kind not in ("dir", "fs", "netfs"):
            found += ["pool-build p", "pool-delete p"] if kind not in ("logical", "zfs") else []
            found += ["pool-start p"] if kind not in ("iscsi-direct", "zfs", "mpath") else []
        found.append("pool-undefine p")
    for definition in _WRONG:
        found += [f"pool-define-as p {definition}", "pool-undefine p"]
    for first, second in _TWICE:
        found += [f"pool-define-as p {first}", f"pool-define-as q {second}", "pool-undefine p", "pool-undefine q"]
    for kind in _SOURCES:
        found += [f"find-storage-pool-sources {kind}", f"find-storage-pool-sources-as {kind} 127.0.0.1 1"]
    return [command for command in found if command not in _UNLIKE]


# What depends on the machine.
_UNLIKE: Final = frozenset(
    {
        # Answers by what libiscsi, iscsiadm or the machine's own servers say.
        "find-storage-pool-sources-as iscsi 127.0.0.1 1",
        "find-storage-pool-sources-as netfs 127.0.0.1 1",
        "find-storage-pool-sources-as gluster 127.0.0.1 1",
    }
)


def run(virsh: Callable[..., subprocess.CompletedProcess[str]], directory: Path, device: str, line: str) -> str:
    """Run one of the commands; what virsh said, with what differs left out."""
    names = {"dir": str(directory), "one": device, "onename": os.path.basename(device)}
    result = virsh(*(word.format(**names) for word in shlex.split(line)))
    said = result.stdout + result.stderr
    for name in ("one", "onename", "dir"):
        said = said.replace(names[name], f"{{{name}}}")
    for pattern, text in _LEFT_OUT:
        said = re.sub(pattern, text, said, flags=re.MULTILINE | re.DOTALL)
    return "\n".join(" ".join(line.split()) for line in said.splitlines() if line.strip())


_LEFT_OUT: Final = (
    (r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", "UUID"),
    (r"Child process \((?:\S*/)?(\S+) .*?\) unexpected exit status (\d+).*", r"\1 fails with \2"),
    (r"(<(?:capacity|allocation|available) unit='bytes'>)[1-9][0-9]*<", r"\1N<"),
    (r"^((?:Capacity|Allocation|Available): +)[0-9.]+ .?i?B$", r"\1N"),
    (r"\n\s*<freeExtent start='[0-9]+' end='[0-9]+'/>", ""),
    (r"<device path='([^']*)'>\n *</device>", r"<device path='\1'/>"),
    (r"<(owner|group)>[0-9]+<", r"<\1>N<"),
    (r"\n *<label>[^<]*</label>", ""),
    # virtd has a back end for it, libvirtd as Debian builds it has none.
    (r"<pool type='vstorage' supported='no'>", "<pool type='vstorage' supported='yes'>"),
)


def _main(uri: str) -> None:
    def virsh(*words: str) -> subprocess.CompletedProcess[str]:
        command = ["virsh", "--quiet", "--connect", uri, *words]
        environment = {**os.environ, "EDITOR": "true", "LC_ALL": "C.UTF-8"}
        return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)

    with tempfile.TemporaryDirectory() as directory:
        image = Path(directory) / "image"
        with image.open("wb") as file:
            file.truncate(64 << 20)
        attach = ["losetup", "--find", "--show", "--partscan", str(image)]
        device = subprocess.run(attach, capture_output=True, text=True, check=True).stdout.strip()
        try:
            answers = [(line, run(virsh, Path(directory), device, line)) for line in commands()]
        finally:
            subprocess.run(["losetup", "--detach", device], check=True)
    json.dump(answers, sys.stdout, indent=0)
    print()


if __name__ == "__main__":
    _main(sys.argv[1])
