"""Devices of the host that are given to the guest."""

from virtd.conf.domain.hostdev import Hostdev, MdevSource, UsbSource
from virtd.drivers.qemu.command.address import place
from virtd.drivers.qemu.command.line import Line, alias, internal, on_off, unsupported


def add_hostdevs(line: Line) -> None:
    """Add the host's devices.

    Raises:
        VirtError: VIR_ERR_CONFIG_UNSUPPORTED for the kinds that have to be prepared by somebody first.
    """
    for hostdev in line.config.hostdevs:
        add_hostdev(line, hostdev)


def add_hostdev(line: Line, hostdev: Hostdev) -> None:
    """Add one device of the host."""
    source = hostdev.source
    if hostdev.mode != "subsystem":
        raise unsupported(f"hostdev mode '{hostdev.mode}' not supported")
    if isinstance(source, UsbSource):
        _usb(line, hostdev, source)
    elif isinstance(source, MdevSource):
        _mdev(line, hostdev, source)
    else:
        raise unsupported(f"hostdev subsys type '{hostdev.type}' is not supported")


def _usb(line: Line, hostdev: Hostdev, source: UsbSource) -> None:
    if not source.bus or not source.device:
        raise internal("USB host device is missing bus/device information")
    path = f"/dev/bus/usb/{source.bus:03d}/{source.device:03d}"
    line.uses(path, write=True)
    reset = {"off": {"guest-reset": False}, "uninitialized": {"guest-reset": True, "guest-resets-all": False}}
    line.device(
        "usb-host",
        hostdevice=path,
        id=alias(hostdev.info),
        bootindex=line.bootindex(hostdev.info),
        **reset.get(source.guest_reset or "", {}),
        **place(line, hostdev.info),
    )


def _mdev(line: Line, hostdev: Hostdev, source: MdevSource) -> None:
    if hostdev.model != "vfio-pci":
        raise unsupported(f"mediated device model '{hostdev.model}' is not supported")
    driver = "vfio-pci-nohotplug" if hostdev.ramfb else "vfio-pci"
    line.need(driver, "VFIO PCI device assignment")
    line.device(
        driver,
        id=alias(hostdev.info),
        sysfsdev=f"/sys/bus/mdev/devices/{source.uuid}",
        display=on_off(hostdev.display),
        ramfb=hostdev.ramfb,
        bootindex=line.bootindex(hostdev.info),
        **place(line, hostdev.info),
    )
