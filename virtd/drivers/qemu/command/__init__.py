"""From a guest's configuration to the QEMU command line that is this very guest.

One module for each subject; each adds its part to a Line. The order of the options is libvirt's: a device comes after
what it is plugged into, and firmware finds devices in the order in which they were made.

What cannot be expressed is refused by name (VIR_ERR_CONFIG_UNSUPPORTED), never left out: what no module looks at is
in refused.py.

This package starts nothing. It opens what QEMU is to be handed (listening sockets, files it writes), since those
descriptors' numbers stand on the command line.
"""

from virtd.conf.domain import Domain
from virtd.drivers.qemu.command import (
    audio,
    controllers,
    cpu,
    disks,
    display,
    extras,
    hostdevs,
    machine,
    memory,
    net,
    ports,
    refused,
    storage,
)
from virtd.drivers.qemu.command.line import Command, Line, Setup, join
from virtd.drivers.qemu.host.binary import Binary
from virtd.drivers.qemu.run import confine

__all__ = ["Command", "Setup", "build"]

_DEPRECATED_INPUT = {"reject": "reject", "crash": "crash"}


def build(config: Domain, binary: Binary, setup: Setup) -> Command:
    """The command line of a guest.

    Args:
        config: the guest, with all defaults, addresses and aliases. What is chosen here (paths of sockets) is
            written into it: it becomes the live configuration.
        binary: the QEMU it is started with.
        setup: what has been prepared for it.

    Returns:
        The command. Its descriptors are the caller's to close, by close().

    Raises:
        VirtError: VIR_ERR_CONFIG_UNSUPPORTED, naming what this QEMU or virtd cannot do; VIR_ERR_INTERNAL_ERROR for
            what makes no sense; VIR_ERR_SYSTEM_ERROR for what could not be opened.
    """
    line = Line(config, binary, setup)
    try:
        _build(line)
    except BaseException:
        line.command.close()
        raise
    return line.command


def _build(line: Line) -> None:
    config = line.config
    if line.setup.live:
        refused.check(config)
    machine.find_boot_order(line)
    machine.choose_firmware(line)
    line.command.cpus = config.vcpu_cpuset
    line.list("name", guest=config.name, **{"debug-threads": True})
    line.add("S")
    storage.add_helper_of_reservations(line)
    machine.add_firmware_images(line)
    machine.add_machine(line)
    cpu.add_cpu(line)
    machine.add_firmware(line)
    memory.add_memory(line)
    cpu.add_smp(line)
    _iothreads(line)
    memory.add_numa(line)
    line.add("uuid", config.uuid or "")
    extras.add_genid(line)
    machine.add_smbios(line)
    display.add_display_none(line)
    line.add("no-user-config")
    line.add("nodefaults")
    _monitors(line)
    machine.add_clock(line)
    machine.add_power(line)
    machine.add_boot(line)
    machine.add_pci_hole(line)
    extras.add_iommu(line)
    controllers.add_controllers(line)
    memory.add_devices(line)
    disks.add_disks(line)
    extras.add_filesystems(line)
    net.add_interfaces(line)
    ports.add_ports(line)
    extras.add_tpms(line)
    display.add_inputs(line)
    audio.add_audio(line)
    display.add_graphics(line)
    display.add_videos(line)
    audio.add_sounds(line)
    extras.add_watchdogs(line)
    ports.add_redirected(line)
    hostdevs.add_hostdevs(line)
    extras.add_balloon(line)
    extras.add_rngs(line)
    for argument in config.qemu_args:
        line.command.argv.append(argument.value or "")
    for variable in config.qemu_env:
        line.command.environment[variable.name or ""] = variable.value or ""
    line.add("sandbox", confine.SANDBOX)
    extras.add_panics(line)
    extras.add_shmems(line)
    extras.add_coreinfo(line)
    extras.add_vsocks(line)
    extras.add_launch_security(line)
    if config.qemu_deprecation not in (None, "none"):
        inputs = _DEPRECATED_INPUT.get(config.qemu_deprecation or "")
        line.json("compat", {"deprecated-output": "hide", "deprecated-input": inputs})
    line.add("msg", "timestamp=on")


def _iothreads(line: Line) -> None:
    config = line.config
    for thread in config.iothread_ids:
        pool = {"thread-pool-min": thread.pool_min, "thread-pool-max": thread.pool_max}
        line.object("iothread", id=f"iothread{thread.id}", **pool)
    # libvirt fills the list up to the number; a model that has not been filled up is numbered the same way.
    known = {thread.id for thread in config.iothread_ids}
    missing = (number for number in range(1, 1 << 31) if number not in known)
    for number, _ in zip(missing, range((config.iothreads or 0) - len(known)), strict=False):
        line.object("iothread", id=f"iothread{number}")
    if config.default_iothread_min is not None or config.default_iothread_max is not None:
        line.need("main-loop", "thread pool of the default iothread")
        pool = {"thread-pool-min": config.default_iothread_min, "thread-pool-max": config.default_iothread_max}
        line.object("main-loop", id="main-loop", **pool)


def _monitors(line: Line) -> None:
    """The monitors. The first has libvirt's names, for those who look for them in the list of character devices."""
    if not line.setup.live:
        path = f"{line.setup.private}/monitor.sock"
        line.add("chardev", join("socket", id="charmonitor", path=path, server=True, wait=False))
        line.add("mon", "chardev=charmonitor,id=monitor,mode=control")
    for number, (name, descriptor) in enumerate(line.setup.monitors):
        monitor = "monitor" if number == 0 else name
        line.lend(descriptor)
        line.add("chardev", join("socket", id=f"char{monitor}", fd=descriptor, server=True, wait=False))
        line.add("mon", f"chardev=char{monitor},id={monitor},mode=control")
