"""Disks, CD-ROMs, floppies and SCSI logical units."""

from virtd.conf.domain.base import DriveAddress
from virtd.conf.domain.basics import is_q35
from virtd.conf.domain.disk import Disk, IoTune, VhostUserSource
from virtd.drivers.qemu.command import storage, virtio
from virtd.drivers.qemu.command.address import place
from virtd.drivers.qemu.command.line import Line, Properties, alias, internal, on_off, unsupported

_LUN_DRIVERS = {"disk": "scsi-hd", "cdrom": "scsi-cd", "lun": "scsi-block"}
_ERROR_POLICIES = {"stop": "stop", "report": "report", "ignore": "ignore", "enospace": "enospc"}
# Limits: field of the model, argument of block_set_io_throttle. The first six must always be given.
_LIMITS = (
    ("total_bytes", "bps"),
    ("read_bytes", "bps_rd"),
    ("write_bytes", "bps_wr"),
    ("total_iops", "iops"),
    ("read_iops", "iops_rd"),
    ("write_iops", "iops_wr"),
    ("total_bytes_max", "bps_max"),
    ("read_bytes_max", "bps_rd_max"),
    ("write_bytes_max", "bps_wr_max"),
    ("total_iops_max", "iops_max"),
    ("read_iops_max", "iops_rd_max"),
    ("write_iops_max", "iops_wr_max"),
    ("total_bytes_max_length", "bps_max_length"),
    ("read_bytes_max_length", "bps_rd_max_length"),
    ("write_bytes_max_length", "bps_wr_max_length"),
    ("total_iops_max_length", "iops_max_length"),
    ("read_iops_max_length", "iops_rd_max_length"),
    ("write_iops_max_length", "iops_wr_max_length"),
    ("size_iops", "iops_size"),
)
_REQUIRED_LIMITS = 6


def add_disks(line: Line) -> None:
    """Add all disks.

    Raises:
        VirtError: VIR_ERR_CONFIG_UNSUPPORTED or VIR_ERR_INTERNAL_ERROR, what one asks for cannot be had.
    """
    chains = _numbered(line)
    _floppy_controller(line)
    for disk in line.config.disks:
        if disk.transient_share and not line.setup.live:
            continue  # libvirt plugs it in when QEMU runs
        add_disk(line, disk, chains[id(disk)])


def add_disk(line: Line, disk: Disk, images: list[storage.Image]) -> None:
    """Add one disk.

    Args:
        line: what it is added to.
        disk: the disk, one of the line's guest.
        images: its images, numbered.

    Raises:
        VirtError: as add_disks.
    """
    if isinstance(disk.source, VhostUserSource):
        _vhost_user(line, disk, disk.source)
        return
    node = storage.add_images(line, disk, images)
    if node is None and disk.device in ("disk", "lun"):
        raise unsupported(f"disk '{disk.target}' has no source")
    _check(line, disk)
    line.json("device", {**_DEVICES[disk.bus or ""](line, disk), **_common(line, disk, node)})
    remember(line, disk, images)
    if disk.iotune is not None:
        # QEMU takes limits by command only; they are set before the guest runs.
        line.command.commands.append(("block_set_io_throttle", throttle(disk, disk.iotune)))


def qom_name(disk: Disk) -> str:
    """The device of a disk that has the block backend, as block commands (`id`) and query-block (`qdev`) call it."""
    name = alias(disk.info)
    if disk.bus == "virtio":
        return f"/machine/peripheral/{name}/virtio-backend"
    if disk.bus == "usb":
        return f"/machine/peripheral/{name}/{name}.0/legacy[0]"
    return name


def _numbered(line: Line) -> dict[int, list[storage.Image]]:
    """The images of every disk. libvirt numbers them from the last disk on."""
    chains: dict[int, list[storage.Image]] = {}
    number = 1
    for disk in reversed(line.config.disks):
        writable = not (disk.readonly or disk.device == "cdrom")
        nothing = isinstance(disk.source, VhostUserSource) or (line.setup.live and storage.left_out(disk))
        images = [] if nothing else storage.chain(disk, number, writable=writable)
        chains[id(disk)] = images
        number += len(images)
    return chains


def _check(line: Line, disk: Disk) -> None:
    if disk.bus not in _DEVICES:
        raise unsupported(f"disk bus '{disk.bus}' is not supported")
    if disk.device == "lun" and disk.bus == "scsi" and disk.type not in ("block", "network"):
        raise unsupported(f"disk device='lun' is not supported for type='{disk.type}'")
    if disk.sgio == "unfiltered":
        raise unsupported("unfiltered sgio is no longer supported")
    if disk.rawio is not None and disk.device != "lun":
        raise unsupported("rawio can be used only with device='lun'")


def _common(line: Line, disk: Disk, node: str | None) -> Properties:
    """What disks have on every bus; of each bus's own properties some come before (the device's place)."""
    options = disk.driver
    scsi_like = disk.bus in ("scsi", "usb", "ide", "sata")
    through = storage.writes_through(storage.cache_mode(disk))
    write_cache = None if through is None else on_off(not through)
    write_error = _ERROR_POLICIES.get(options.error_policy or "")
    read_error = _ERROR_POLICIES.get(options.rerror_policy or options.error_policy or "")
    floppy = disk.bus == "fdc"
    return {
        "share-rw": True if disk.shareable else None,
        "drive": node,
        "id": alias(disk.info),
        "bootindex": None if floppy else line.bootindex(disk.info),
        "logical_block_size": disk.logical_block_size,
        "physical_block_size": disk.physical_block_size,
        "wwn": int(disk.wwn, 16) if disk.wwn is not None and scsi_like else None,
        "rotation_rate": disk.rotation_rate,
        "vendor": disk.vendor,
        "product": disk.product,
        "removable": disk.removable is True if disk.bus == "usb" else None,
        "write-cache": None if disk.device == "lun" or node is None else write_cache,
        "cyls": disk.cylinders,
        "heads": disk.heads,
        "secs": disk.sectors,
        "bios-chs-trans": disk.translation if disk.translation != "none" else None,
        "serial": _spaced(disk.serial),
        "werror": write_error,
        "rerror": read_error if read_error != "enospc" else None,
    }


def _virtio(line: Line, disk: Disk) -> Properties:
    options = disk.driver
    if disk.device not in ("disk", "lun"):
        raise unsupported(f"disk type of '{disk.target}' does not support ejectable media")
    return {
        "driver": virtio.driver(line, "virtio-blk", disk.model),
        **virtio.options(options.virtio),
        "iothread": f"iothread{options.iothread}" if options.iothread is not None else None,
        "ioeventfd": options.ioeventfd,
        "event_idx": options.event_idx,
        "num-queues": options.queues,
        "queue-size": options.queue_size,
        **place(line, disk.info),
    }


def _ide(line: Line, disk: Disk) -> Properties:
    address = _drive(disk)
    if address.target:
        raise internal("target must be 0 for ide controller")
    driver = "ide-cd" if disk.device == "cdrom" else "ide-hd"
    return {"driver": driver, "bus": f"ide.{address.bus}", "unit": address.unit}


def _sata(line: Line, disk: Disk) -> Properties:
    address = _drive(disk)
    if address.bus:
        raise internal("bus must be 0 for ide controller")
    own = address.controller == 0 and is_q35(line.config.os.machine or "")
    bus = "ide" if own else alias(line.controller("sata", address.controller).info)
    return {"driver": "ide-cd" if disk.device == "cdrom" else "ide-hd", "bus": f"{bus}.{address.unit}"}


def _scsi(line: Line, disk: Disk) -> Properties:
    address = _drive(disk)
    driver = _LUN_DRIVERS.get(disk.device)
    if driver is None:
        raise unsupported(f"disk device='{disk.device}' is not supported for bus='scsi'")
    properties: Properties = {"driver": driver, **scsi_place(line, address)}
    if disk.device != "lun":
        properties["device_id"] = disk.serial or f"drive-{alias(disk.info)}"
    return properties


def scsi_place(line: Line, address: DriveAddress) -> Properties:
    """Where a logical unit is plugged in; older controllers know no more of it than a number.

    Raises:
        VirtError: VIR_ERR_INTERNAL_ERROR, its controller has no such place.
    """
    controller = line.controller("scsi", address.controller)
    bus: Properties = {"bus": f"{alias(controller.info)}.0"}
    if controller.model not in ("lsilogic", "dc390", "am53c974"):
        return bus | {"channel": address.bus, "scsi-id": address.target, "lun": address.unit}
    if address.target and controller.model == "lsilogic":
        raise internal("target must be 0 for controller model 'lsilogic'")
    return bus | {"scsi-id": address.unit}


def _spaced(serial: str | None) -> str | None:
    """A serial number as guests of libvirt's see it: blanks have a backslash before them."""
    return None if serial is None else serial.replace(" ", "\\ ")


def _usb(line: Line, disk: Disk) -> Properties:
    return {"driver": "usb-storage", **place(line, disk.info)}


def _fdc(line: Line, disk: Disk) -> Properties:
    return {"driver": "floppy", "unit": _drive(disk).unit}


_DEVICES = {"virtio": _virtio, "ide": _ide, "sata": _sata, "scsi": _scsi, "usb": _usb, "fdc": _fdc}


def _drive(disk: Disk) -> DriveAddress:
    if not isinstance(disk.info.address, DriveAddress):
        raise internal(f"unexpected address type for {disk.bus} disk")
    return disk.info.address


def _floppy_controller(line: Line) -> None:
    """Make the controller where the machine has none, and say which drives are booted from."""
    floppies = [disk for disk in line.config.disks if disk.bus == "fdc"]
    places = {f"bootindex{'AB'[_drive(disk).unit]}": line.bootindex(disk.info) for disk in floppies}
    if not floppies:
        return
    if is_q35(line.config.os.machine or ""):
        line.json("device", {"driver": "isa-fdc", **places})
    else:
        for name, order in places.items():
            if order is not None:
                line.add("global", f"isa-fdc.{name}={order}")


def _vhost_user(line: Line, disk: Disk, source: VhostUserSource) -> None:
    """A disk that another process serves over a socket."""
    name = alias(disk.info)
    again = source.reconnect.timeout if source.reconnect is not None and source.reconnect.enabled else None
    line.uses(source.path, write=True)
    line.chardev("socket", f"chr-vu-{name}", {"path": source.path, "reconnect": again})
    line.json(
        "device",
        {
            "driver": "vhost-user-blk-pci",
            **virtio.options(disk.driver.virtio),
            "num-queues": disk.driver.queues,
            "queue-size": disk.driver.queue_size,
            **place(line, disk.info),
            "chardev": f"chr-vu-{name}",
            "id": name,
            "bootindex": line.bootindex(disk.info),
        },
    )


def remember(line: Line, disk: Disk, images: list[storage.Image]) -> None:
    """Note the names by which QEMU's events call the disk."""
    entry = alias(disk.info), disk.source_name or ""
    for image in images:
        line.command.disks[f"libvirt-{image.number}-format"] = entry
        line.command.disks[f"libvirt-{image.number}-storage"] = entry
    line.command.disks[alias(disk.info)] = line.command.disks[qom_name(disk)] = entry


def throttle(disk: Disk, limits: IoTune) -> Properties:
    """The arguments of block_set_io_throttle for a disk. Those that must be given stand there in any case."""
    arguments: Properties = {"id": qom_name(disk)}
    for number, (field, name) in enumerate(_LIMITS):
        value = getattr(limits, field) or 0
        if value or number < _REQUIRED_LIMITS:
            arguments[name] = value
    arguments["group"] = limits.group or f"drive-{alias(disk.info)}"
    return arguments
