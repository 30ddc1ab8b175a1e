"""Debian's own QEMU guest agent in a real Linux guest, as virsh sees it.

One guest for all, as it takes its time to boot. What the commands say was learnt from libvirtd 9.0.0.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from tests.e2e.events import Event, Events
from tests.e2e.guests import wait_off
from tests.guests import linux
from tests.guests.xml import linux_domain
from tests.helpers.instance import Instance

BOOT_SECONDS: Final = 120.0  # on a machine where others compete
KEY, OTHER = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI me", "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAJ you"
DEVICES: Final = """
    <channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'/></channel>
    <disk type='file'><driver name='qemu' type='raw' discard='unmap'/><source file='{disk}'/>
      <target dev='vda' bus='virtio'/></disk>
    <interface type='user'><mac address='52:54:00:00:00:01'/><model type='virtio'/></interface>"""
FAILED: Final = "internal error: unable to execute QEMU agent command"
TIME: Final = r"Time: {}\d\d"
OS: Final = [
    "os.id : virtd-test",
    "os.name : Guest of the tests",
    "os.pretty-name : Guest of the tests 1",
    "os.version-id : 1",
]
HOST: Final = "hostname : host1"
VCPUS: Final = "vcpus : 0-1\nonline : {}\noffinable : 1".replace("offinable", "offlinable")

# A command of virsh, and what it says (a pattern, with one space for several); an error begins with "!".
COMMANDS: Final = (
    ("domtime --time 1600000000", ""),
    ("domtime", TIME.format("16000000")),
    ("domtime --sync", ""),
    ("domtime", TIME.format("16000000")),
    ("domhostname", "host1"),
    ("domhostname --source agent", "host1"),
    ("domhostname --source lease", "!failed to get hostname\nno hostname found: no hostname found for domain agent"),
    ("domfsinfo", " /mnt vda ext4 vda"),
    ("domfsfreeze", ""),
    ("domfsfreeze", f"!Unable to freeze filesystems\n{FAILED} 'guest-fsfreeze-freeze': Command guest-fsfreeze-freeze"
                    " has been disabled: the agent is in frozen state"),
    ("domfsthaw", ""),
    ("domfsfreeze --mountpoint /mnt", ""),
    ("domfsthaw", ""),
    ("domfsfreeze --mountpoint /nowhere", ""),
    ("domfstrim", ""),
    ("domfstrim --mountpoint /mnt",
     "!Unable to invoke fstrim\nargument unsupported: Specifying mount point is not supported for now"),
    ("guestvcpus", VCPUS.format("0-1")),
    ("guestvcpus 1 --disable", ""),
    ("guestvcpus", VCPUS.format("0")),
    ("vcpucount --guest", "1"),
    ("guestvcpus 1 --enable", ""),
    ("guestvcpus 7 --enable", "!invalid argument: guest is missing vCPUs '7'"),
    ("guestvcpus 0 --disable", "!Operation not supported: vCPU '0' is not offlinable"),
    ("setvcpus 1 --guest", ""),
    ("vcpucount --guest", "1"),
    ("setvcpus 2 --guest", ""),
    ("setvcpus 3 --guest", "!invalid argument: requested vcpu count is greater than the count of enabled vcpus in the"
                           " domain: 3 > 2"),
    ("guestinfo --os --hostname", "\n".join([*OS, "os.machine : x86_64", r"os.kernel-release : \S+",
                                             r"os.kernel-version : #1 .*", HOST])),
    ("guestinfo --timezone", "timezone.name : UTC\ntimezone.offset : 0"),
    ("guestinfo --user", "user.count : 1\nuser.0.name : root\nuser.0.login-time : 1700000000000"),
    ("guestinfo --disk", "disk.count : 1\ndisk.0.name : /dev/vda\ndisk.0.partition : no\ndisk.0.alias : vda"),
    ("guestinfo --filesystem", "fs.count : 1\nfs.0.name : vda\nfs.0.mountpoint : /mnt\nfs.0.fstype : ext4\n"
                               r"fs.0.total-bytes : \d+\nfs.0.used-bytes : \d+\nfs.0.disk.count : 1\n"
                               "fs.0.disk.0.alias : vda\nfs.0.disk.0.device : /dev/vda"),
    ("set-user-password guest secret", ""),
    ("set-user-password guest --encrypted --password $6$x$y", ""),
    ("get-user-sshkeys nobody",
     f"!{FAILED} 'guest-ssh-get-authorized-keys': failed to lookup user 'nobody': Success"),
    ("set-user-sshkeys guest --file {key}", ""),
    ("set-user-sshkeys guest --file {other}", ""),
    ("set-user-sshkeys guest --file {key} --reset", ""),
    ("get-user-sshkeys guest", KEY),
    ("set-user-sshkeys guest --file {key} --remove", ""),
    ("get-user-sshkeys guest", ""),
    ("domifaddr --source agent --full", " lo 00:00:00:00:00:00 ipv4 127.0.0.1/8\n lo 00:00:00:00:00:00 ipv6 ::1/128\n"
                                        " eth0 52:54:00:00:00:01 ipv4 10.0.2.15/24"
                                        # These come when the guest has found its router.
                                        r"(\n eth0 52:54:00:00:00:01 ipv6 fe\S+/64)*"),
    ('qemu-agent-command {{"execute":"guest-ping"}}', '{"return":{}}'),
    ('qemu-agent-command --timeout 20 {{"execute":"guest-ping"}}', '{"return":{}}'),
    ('qemu-agent-command {{"execute":"guest-nope"}}',
     f"!{FAILED} 'guest-nope': The command guest-nope has not been found"),
    ("guest-agent-timeout --timeout 20", ""),
    ("domhostname", "host1"),
    ("dumpxml --xpath //channel/target", '<target type="virtio" name="org.qemu.guest_agent.0" state="connected"/>'),
    ("dumpxml --inactive --xpath //channel/target", '<target type="virtio" name="org.qemu.guest_agent.0"/>'),
)  # fmt: skip


def _agent(found: list[Event]) -> list[tuple[int, int]]:
    """The events of an agent's life: state and reason."""
    return [event.values for event in found if event.kind == "AGENT_LIFECYCLE"]


def test_what_a_real_agent_does(virtd: Instance, events: Events, tmp_path: Path) -> None:
    disk = virtd.root / "data.img"
    disk.touch()
    disk.chmod(0o666)
    with disk.open("r+b") as file:
        file.truncate(16 << 20)
    for name, key in (("key", KEY), ("other", OTHER)):
        (tmp_path / name).write_text(key + "\n")
    options = ("virtd.quiet", "virtd.mount=vda", "virtd.net=dhcp", "virtd.name=host1")
    guest = linux.build(agent=True)
    xml = linux_domain("agent", guest, *options, devices=DEVICES.format(disk=disk))
    virtd.define(xml.replace("<vcpu>1<", "<vcpu>2<"))
    virtd.virsh("start", "agent")
    # The agent is there when it has opened its channel.
    found = events.take(lambda found: (1, 2) in _agent(found), BOOT_SECONDS)
    assert _agent(found) == [(2, 1), (1, 2)]

    wrong = {}
    for number, (command, expected) in enumerate(COMMANDS):
        name, *arguments = command.format(key=tmp_path / "key", other=tmp_path / "other").split()
        result = virtd.virsh_result(name, "agent", *arguments, seconds=60)
        failed = re.sub("^error: ", "", result.stderr, flags=re.MULTILINE)
        said = result.stdout.strip("\n") if result.returncode == 0 else f"!{failed.strip()}"
        said = re.sub(" +", " ", said)
        said = "\n".join(line.rstrip() for line in said.splitlines() if line.strip())
        if said != expected and not re.fullmatch(expected, said):
            wrong[number, command] = said
    assert not wrong

    _sleep_and_end(virtd, events)


def _sleep_and_end(virtd: Instance, events: Events) -> None:
    """Put the guest to sleep, wake it up, and let its agent shut it down."""
    virtd.virsh("dompmsuspend", "agent", "mem")
    events.take(lambda found: any(event.kind == "PMSUSPEND" for event in found))
    assert virtd.virsh("domstate", "--reason", "agent") == "pmsuspended (unknown)"
    assert virtd.virsh_error("domtime", "agent") == "Requested operation is not valid: domain is not running"
    virtd.virsh("dompmwakeup", "agent")
    assert virtd.virsh("domstate", "--reason", "agent") == "running (event wakeup)"
    events.take(lambda found: (1, 2) in _agent(found), BOOT_SECONDS)
    virtd.virsh("shutdown", "agent", "--mode", "agent")
    events.take(lambda found: any(event.kind == "LIFECYCLE" and event.values[0] == 5 for event in found), BOOT_SECONDS)
    wait_off(virtd, "agent")
    assert virtd.virsh("domstate", "--reason", "agent") == "shut off (shutdown)"
