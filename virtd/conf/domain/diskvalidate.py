"""What libvirt checks of disks: which of the many settings go together, and what QEMU's buses can carry."""

from virtd import constants as c
from virtd.conf.domain.base import DriveAddress
from virtd.conf.domain.disk import BackingStore, DirSource, Disk, IoTune, NetworkSource, VhostUserSource
from virtd.conf.domain.domain import Domain
from virtd.conf.domain.errors import conf_error, internal_error, qemu_error, xml_error
from virtd.conf.domain.implicit import find_controller

UNSUPPORTED_PROTOCOLS = ("tftp",)
VENDOR_LENGTH, PRODUCT_LENGTH = 8, 16
SAFE = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_ .+")
LSI_UNITS = 7

# Settings of a virtio disk's driver that no other has: (field, how libvirt calls it).
VIRTIO_ONLY = (
    ("queues", "queues attribute in disk driver element is only supported by virtio-blk"),
    ("queue_size", "queue_size attribute in disk driver element is only supported by virtio-blk"),
    ("event_idx", "disk event_idx mode supported only for virtio bus"),
    ("ioeventfd", "disk ioeventfd mode supported only for virtio bus"),
)
# Limits that cannot be set both as a total and for one direction: (total, reading, writing, libvirt's name).
LIMITS = (
    ("total_bytes", "read_bytes", "write_bytes", "bytes_sec"),
    ("total_iops", "read_iops", "write_iops", "iops_sec"),
    ("total_bytes_max", "read_bytes_max", "write_bytes_max", "bytes_sec_max"),
    ("total_iops_max", "read_iops_max", "write_iops_max", "iops_sec_max"),
)


def check_disk(disk: Disk) -> None:
    """What every hypervisor's disks must obey.

    Raises:
        VirtError: of VIR_FROM_DOMAIN.
    """
    driver, source = disk.driver, disk.source
    virtio = disk.bus == "virtio"
    if disk.device == "lun" and disk.type not in ("block", "network", "volume"):
        raise conf_error("disk device='lun' is only valid for block type disk source")
    if disk.device != "lun":
        if disk.rawio is not None:
            raise conf_error("rawio can be used only with device='lun'")
        if disk.sgio is not None:
            raise conf_error("sgio can be used only with device='lun'")
    if disk.model is not None and not virtio:
        raise conf_error(f"disk model '{disk.model}' not supported for bus '{disk.bus}'")
    for field, text in VIRTIO_ONLY:
        if getattr(driver, field) is not None and not virtio:
            raise conf_error(text)
    if disk.vendor is not None and len(disk.vendor) > VENDOR_LENGTH:
        raise conf_error(f"disk vendor is more than {VENDOR_LENGTH} characters")
    if disk.product is not None and len(disk.product) > PRODUCT_LENGTH:
        raise conf_error(f"disk product is more than {PRODUCT_LENGTH} characters")
    if isinstance(source, VhostUserSource) and not virtio:
        raise conf_error("vhostuser disk supports only virtio bus")
    if source is not None and source.startup_policy is not None:
        policy = source.startup_policy
        if disk.type == "network":
            raise xml_error(f"disk startupPolicy '{policy}' is not allowed for disk of '{disk.type}' type")
        if disk.device not in ("cdrom", "floppy") and policy == "requisite":
            raise xml_error(f"disk startupPolicy '{policy}' is allowed only for cdrom or floppy")
    if disk.removable is not None and disk.bus != "usb":
        raise xml_error("removable is only valid for usb disks")
    if disk.iotune is not None:
        check_iotune(disk.iotune)
    check_chain(disk.backing)


def check_iotune(tune: IoTune) -> None:
    """A limit is for both directions together or for each.

    Raises:
        VirtError: VIR_ERR_XML_ERROR.
    """
    for total, read, write, name in LIMITS:
        if getattr(tune, total) and (getattr(tune, read) or getattr(tune, write)):
            raise xml_error(f"total and read/write {name} cannot be set at the same time")


def check_chain(store: BackingStore | None) -> None:
    """Each image of a backing chain has a format and is somewhere.

    Raises:
        VirtError: VIR_ERR_XML_ERROR.
    """
    while store is not None and not store.end:
        if store.format is None:
            raise xml_error("missing disk backing store format")
        if store.source is None:
            raise xml_error("missing disk backing store source")
        store = store.backing


def iothread_ids(domain: Domain) -> set[int]:
    """The numbers of the I/O threads there are."""
    return {one.id for one in domain.iothread_ids if one.id} or set(range(1, (domain.iothreads or 0) + 1))


def check_qemu_disk(domain: Domain, disk: Disk) -> None:
    """What QEMU's disks must obey.

    Raises:
        VirtError: of VIR_FROM_QEMU.
    """
    driver, source, bus = disk.driver, disk.source, disk.bus
    if disk.target is not None and disk.target[-1:].isdigit():
        raise qemu_error(f"invalid disk target '{disk.target}', partitions can't appear in disk targets")
    if driver.name != "qemu":
        raise qemu_error(f"unsupported driver name '{driver.name}' for disk '{disk.target}'")
    if disk.serial is not None:
        if bus in ("fdc", "sd"):
            raise internal_error(f"Serial property not supported for drive bus '{bus}'", domain=c.VIR_FROM_QEMU)
        if not SAFE.issuperset(disk.serial):
            text = f"driver serial '{disk.serial}' contains unsafe characters"
            raise internal_error(text, domain=c.VIR_FROM_QEMU)
    if disk.device == "lun" and bus not in ("virtio", "scsi"):
        raise qemu_error(f"disk device='lun' is not supported for bus='{bus}'")
    if bus == "virtio" and disk.device in ("cdrom", "floppy"):
        raise qemu_error(f"disk type of '{disk.target}' does not support ejectable media")
    if disk.readonly and disk.device == "disk" and bus in ("ide", "sata"):
        raise qemu_error(f"readonly {bus} disks are not supported")
    if driver.copy_on_read and disk.readonly:
        raise qemu_error(f"copy_on_read is not compatible with read-only disk '{disk.target}'")
    if disk.wwn is not None and bus not in ("ide", "scsi", "sata"):
        raise qemu_error("Only ide and scsi disk support wwn")
    if (disk.vendor is not None or disk.product is not None) and bus != "scsi":
        raise qemu_error("Only scsi disk supports vendor and product")
    if disk.rotation_rate and bus not in ("scsi", "ide", "sata"):
        raise internal_error("rotation rate is only valid for SCSI/IDE/SATA bus", domain=c.VIR_FROM_QEMU)
    if driver.iothread:
        if bus != "virtio":
            raise qemu_error(f"IOThreads not available for bus {bus} target {disk.target}")
        if driver.iothread not in iothread_ids(domain):
            raise qemu_error(f"Disk iothread '{driver.iothread}' not defined in iothreadid")
    if driver.io == "native" and driver.cache not in ("none", "directsync"):
        raise qemu_error("io='native' needs either no disk cache or directsync cache mode")
    address = disk.info.address
    if bus == "virtio" and address is not None and address.kind not in ("pci", "ccw", "virtio-mmio"):
        raise qemu_error(f"virtio disk cannot have an address of type '{address.kind}'")
    if driver.type == "fat" and disk.type != "dir":
        raise qemu_error("storage format 'fat' is supported only with 'dir' storage type")
    if isinstance(source, DirSource) and not disk.readonly:
        raise qemu_error("virtual FAT storage can't be accessed in read-write mode")
    if isinstance(source, NetworkSource) and source.protocol in UNSUPPORTED_PROTOCOLS:
        raise qemu_error(f"'{source.protocol}' protocol is not supported with this QEMU binary")
    if disk.type == "vhostuser":
        backing = domain.memory_backing
        if not (backing is not None and backing.access == "shared"):
            raise qemu_error("'vhostuser' requires shared memory")
    check_place(domain, disk)


def check_place(domain: Domain, disk: Disk) -> None:
    """What places there are on a controller.

    Raises:
        VirtError: of VIR_FROM_QEMU.
    """
    address, bus = disk.info.address, disk.bus
    if not isinstance(address, DriveAddress):
        return
    controller = find_controller(domain, bus or "", address.controller)
    if bus in ("ide", "fdc") and address.controller:
        name = "IDE" if bus == "ide" else bus
        raise internal_error(f"Only 1 {name} controller is supported", domain=c.VIR_FROM_QEMU)
    if bus in ("fdc", "sata") and address.bus:
        raise internal_error(f"Only 1 {bus} bus is supported", domain=c.VIR_FROM_QEMU)
    if bus in ("ide", "fdc", "sata") and address.target:
        raise qemu_error(f"target must be 0 for {bus} controller")
    if bus == "scsi":
        if address.bus:
            raise internal_error("SCSI controller only supports 1 bus", domain=c.VIR_FROM_QEMU)
        if controller is not None and controller.model == "lsilogic":
            if address.target:
                raise qemu_error("target must be 0 for controller model 'lsilogic'")
            if address.unit > LSI_UNITS:
                raise qemu_error(f"This QEMU doesn't support target greater than {LSI_UNITS}")
