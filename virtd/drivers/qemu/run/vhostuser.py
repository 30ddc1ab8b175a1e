"""What serves a guest's devices from processes of its own: directories (virtiofs), reservations, a bus, a GPU."""

import os
import socket

from virtd import constants as c
from virtd.conf.domain import Domain as Config
from virtd.conf.domain.disk import Disk
from virtd.conf.domain.display import DbusGraphics, Video
from virtd.conf.domain.filesystem import Filesystem, Virtiofsd
from virtd.drivers.qemu.guest import Guest
from virtd.drivers.qemu.run import confine, helpers
from virtd.drivers.qemu.run.helpers import Helper
from virtd.errors import VirtError
from virtd.state import files, sockets, undo

# Whether virtiofsd does something: field of the model, its word for it.
_SWITCHES = (("xattr", "xattr"), ("posix_lock", "posix_lock"), ("flock", "flock"))
_BUS = """<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig><type>org.libvirt.qemu</type><listen>unix:path={path}</listen><auth>EXTERNAL</auth>
<policy context='default'><allow send_destination='*' eavesdrop='true'/><allow eavesdrop='true'/><allow own='*'/>
</policy></busconfig>
"""


def prepare(
    config: Config, guest: Guest, user: confine.User | None, *, privileged: bool
) -> tuple[list[Helper], dict[str, int]]:
    """The programs that a guest's devices need, and QEMU's ends of those that it is handed.

    Args:
        config: the guest's configuration, with aliases.
        guest: its directory.
        user: who QEMU runs as.
        privileged: system mode.

    Returns:
        The programs, and descriptors by the alias of the device.

    Raises:
        VirtError: VIR_ERR_OPERATION_FAILED, a program is not installed; what else keeps it from working.
    """
    made: list[Helper] = []
    ends: dict[str, int] = {}
    try:
        for filesystem in config.filesystems:
            if filesystem.driver is not None and filesystem.driver.type == "virtiofs" and not filesystem.source_socket:
                made.append(_virtiofs(filesystem, guest, user, privileged=privileged))
        if any(_managed(disk) for disk in config.disks):
            made.append(_reservations(guest, user))
        for graphics in config.graphics:
            if isinstance(graphics, DbusGraphics) and not graphics.p2p and graphics.address is None:
                made.append(_bus(guest, user))
        for video in config.videos:
            if video.driver is not None and video.driver.name == "vhostuser":
                ours, helper = _gpu(video)
                made.append(helper)
                ends[video.info.alias or ""] = ours
    except BaseException:
        close(made, ends)
        raise
    return made, ends


def close(made: list[Helper], ends: dict[str, int]) -> None:
    """Close everything in this process."""
    for helper in made:
        helper.close()
    while ends:
        os.close(ends.popitem()[1])


def _virtiofs(filesystem: Filesystem, guest: Guest, user: confine.User | None, *, privileged: bool) -> Helper:
    if not privileged:
        text = "virtiofs is not yet supported in session mode"
        raise VirtError(c.VIR_ERR_CONFIG_UNSUPPORTED, text, domain=c.VIR_FROM_QEMU)
    source = filesystem.source_dir or ""
    if not os.path.exists(source):
        text = f"the virtiofs export directory '{source}' does not exist"
        raise VirtError(c.VIR_ERR_INTERNAL_ERROR, text, domain=c.VIR_FROM_QEMU)
    said = filesystem.binary or Virtiofsd()
    binary, _ = helpers.device_program("fs", unless=said.path)
    options = [f"source={source.replace(',', ',,')}"]
    options += [f"cache={said.cache}"] if said.cache is not None else []
    options += [f"sandbox={said.sandbox}"] if said.sandbox is not None else []
    for field, word in _SWITCHES:
        value = getattr(said, field)
        if value is not None:
            options.append(word if value else f"no_{word}")
    path = f"{guest.private}/{filesystem.info.alias}-fs.sock"
    undo.note(guest.undo_path, "file", path=path)
    listening = sockets.listen(path, mode=0o600, backlog=1)
    if user is not None:
        os.chown(path, user.uid, user.gid)
    descriptor = confine.raised(listening.detach())
    argv = [binary, f"--fd={descriptor}", "-o", ",".join(options)]
    if said.thread_pool_size is not None:
        argv.append(f"--thread-pool-size={said.thread_pool_size}")
    return Helper(argv, [descriptor], privileged=True)


def _managed(disk: Disk) -> bool:
    source = disk.source
    return source is not None and source.reservations is not None and source.reservations.managed is True


def _reservations(guest: Guest, user: confine.User | None) -> Helper:
    path = f"{guest.private}/pr-helper0.sock"
    argv = [helpers.program("qemu-pr-helper", "qemu-utils or qemu-system-common"), "-k", path]
    return Helper(argv, [], privileged=True, ready=path, owner=user)


def _bus(guest: Guest, user: confine.User | None) -> Helper:
    path, config = f"{guest.private}/dbus.sock", f"{guest.private}/dbus.conf"
    binary = helpers.program("dbus-daemon", "dbus-daemon")
    files.replace(config, _BUS.format(path=path).encode(), durable=False)
    os.chmod(config, 0o644)
    argv = [binary, f"--config-file={config}", "--nofork", "--nopidfile", "--nosyslog"]
    return Helper(argv, [], user=user, ready=path)


def _gpu(video: Video) -> tuple[int, Helper]:
    said = video.driver
    assert said is not None
    acceleration = video.acceleration
    binary, _ = helpers.device_program("gpu")
    ours, theirs = (confine.raised(end.detach()) for end in socket.socketpair())
    argv = [binary, f"--fd={theirs}"]
    if acceleration is not None and acceleration.accel3d:
        argv.append("--virgl")
    return ours, Helper(argv, [theirs], privileged=True)
