"""Devices of the host that are given to the guest. What has to be made ready for it is run/hostdevices.py's matter."""

import os
import resource

from virtd.conf.domain.base import DriveAddress, PciAddress
from virtd.conf.domain.disk import NetworkSource, NvmeSource, VhostUserSource
from virtd.conf.domain.hostdev import Hostdev, MdevSource, PciSource, ScsiHostSource, ScsiSource, UsbSource
from virtd.conf.domain.interface import HostdevSource, Interface
from virtd.drivers.qemu.command import disks, storage, virtio
from virtd.drivers.qemu.command.address import place, rom
from virtd.drivers.qemu.command.line import Line, Properties, alias, internal, on_off, unsupported
from virtd.drivers.qemu.host import sysfs
from virtd.state import files

# What QEMU locks for VFIO beyond the guest's memory: its own windows, as libvirt reckons.
_BEYOND = 1 << 30
_VHOST_SCSI = "/dev/vhost-scsi"


def add_hostdevs(line: Line) -> None:
    """Add the host's devices.

    Raises:
        VirtError: VIR_ERR_CONFIG_UNSUPPORTED, one cannot be given to a guest.
    """
    config = line.config
    sources = [[one.source for one in devices] for devices in (config.hostdevs, config.disks, config.interfaces)]
    if any(isinstance(one, PciSource | MdevSource | NvmeSource | HostdevSource) for some in sources for one in some):
        limit = line.config.memtune.hard_limit if line.config.memtune is not None else None
        wanted = (line.config.memory or 0) * 1024 + _BEYOND if limit is None else limit * 1024
        if line.command.locked != resource.RLIM_INFINITY:
            line.command.locked = max(wanted, line.command.locked or 0)
    for interface in line.config.interfaces:
        if isinstance(interface.source, HostdevSource):
            _card(line, interface, interface.source)
    for hostdev in line.config.hostdevs:
        add_hostdev(line, hostdev)


def add_hostdev(line: Line, hostdev: Hostdev) -> None:
    """Add one device of the host."""
    if hostdev.mode != "subsystem":
        raise unsupported(f"hostdev mode '{hostdev.mode}' not supported")
    match hostdev.source:
        case UsbSource() as source:
            _usb(line, hostdev, source)
        case MdevSource() as source:
            _mdev(line, hostdev, source)
        case PciSource() as source:
            _pci(line, hostdev, source)
        case ScsiSource() as source:
            _scsi(line, hostdev, source)
        case ScsiHostSource() as source:
            _vhost_scsi(line, hostdev, source)
        case _:
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


def _pci(line: Line, hostdev: Hostdev, source: PciSource) -> None:
    _vfio(line, hostdev, source, hostdev.backend)


def _card(line: Line, interface: Interface, source: HostdevSource) -> None:
    """A network card of the host: to QEMU a PCI device like others."""
    if not isinstance(source.address, PciAddress):
        raise unsupported("interface type 'hostdev' is supported with a PCI address only")
    _vfio(line, interface, source.address, source.backend)


def _vfio(line: Line, device: Hostdev | Interface, source: PciSource | PciAddress, backend: str | None) -> None:
    if backend != "vfio":
        # Which it is by default, is decided when the device is made ready.
        raise internal(f"invalid PCI passthrough type '{backend or 'default'}'")
    line.need("vfio-pci", "VFIO PCI device assignment")
    host = f"{source.domain:04x}:{source.bus:02x}:{source.slot:02x}.{source.function:x}"
    _uses_group(line, f"{sysfs.ROOT}/bus/pci/devices/{host}")
    teaming = device.teaming
    line.device(
        "vfio-pci",
        host=host,
        id=alias(device.info),
        bootindex=line.bootindex(device.info),
        failover_pair_id=teaming.persistent if teaming is not None and teaming.type == "transient" else None,
        **place(line, device.info),
        **rom(device.info),
    )


def _mdev(line: Line, hostdev: Hostdev, source: MdevSource) -> None:
    if hostdev.model != "vfio-pci":
        raise unsupported(f"mediated device model '{hostdev.model}' is not supported")
    driver = "vfio-pci-nohotplug" if hostdev.ramfb else "vfio-pci"
    line.need(driver, "VFIO PCI device assignment")
    device = f"{sysfs.ROOT}/bus/mdev/devices/{source.uuid}"
    _uses_group(line, device)
    line.device(
        driver,
        id=alias(hostdev.info),
        sysfsdev=device,
        display=on_off(hostdev.display),
        ramfb=hostdev.ramfb,
        bootindex=line.bootindex(hostdev.info),
        **place(line, hostdev.info),
    )


def _scsi(line: Line, hostdev: Hostdev, source: ScsiSource) -> None:
    """A logical unit of the host's, or of an iSCSI target: commands go to it as they are."""
    number = _number(line, hostdev)
    node = f"libvirt-{number}-backend"
    backend: Properties
    if source.protocol == "iscsi":
        found = NetworkSource(
            protocol="iscsi", name=source.name, hosts=source.hosts, auth=source.auth, initiator=source.initiator
        )
        backend = storage.where(line, found, number)
    else:
        path = sysfs.scsi_generic(source.adapter or "", source.bus or 0, source.target or 0, source.unit or 0)
        line.uses(path, write=not hostdev.readonly)
        backend = {"driver": "host_device", "filename": path}
    line.json("blockdev", {**backend, "node-name": node, "read-only": hostdev.readonly is True})
    address = hostdev.info.address
    if not isinstance(address, DriveAddress):
        raise internal("unexpected address type for SCSI host device")
    line.json(
        "device",
        {
            "driver": "scsi-generic",
            "drive": node,
            "id": alias(hostdev.info),
            "bootindex": line.bootindex(hostdev.info),
            **disks.scsi_place(line, address),
        },
    )


def _number(line: Line, hostdev: Hostdev) -> str:
    """What tells a unit's node from others: a number behind those of the disks' images, as in libvirt."""
    if line.setup.running:
        return alias(hostdev.info)
    chains = [
        storage.chain(disk, 1, writable=False)
        for disk in line.config.disks
        if not isinstance(disk.source, VhostUserSource)
    ]
    units = [one for one in line.config.hostdevs if isinstance(one.source, ScsiSource)]
    return str(sum(map(len, chains)) + 1 + next(n for n, one in enumerate(units) if one is hostdev))


def _vhost_scsi(line: Line, hostdev: Hostdev, source: ScsiHostSource) -> None:
    """A target in the host's kernel."""
    # Opened in any case: whether the host has it is known only by that.
    try:
        descriptor = os.open(_VHOST_SCSI, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        raise unsupported(f"vhost-scsi device file '{_VHOST_SCSI}' cannot be found") from None
    except OSError as error:
        raise files.os_error(error, f"Unable to open '{_VHOST_SCSI}' for vhost-scsi device") from None
    line.device(
        virtio.driver(line, "vhost-scsi", hostdev.model),
        wwpn=source.wwpn,
        vhostfd=str(line.keep(descriptor)),
        id=alias(hostdev.info),
        **place(line, hostdev.info),
    )


def _uses_group(line: Line, device: str) -> None:
    """Note the file of a device's IOMMU group, which QEMU opens."""
    group = sysfs.iommu_group(device) if line.setup.live else None
    if group is not None:
        line.uses(f"/dev/vfio/{group}", write=True)
