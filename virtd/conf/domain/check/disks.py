"""Disks: which of the many settings go together, and what QEMU's buses and block drivers can carry."""

from virtd import constants as c
from virtd.conf.domain.check.rules import INTERNAL, XML, Context, Rule, Rules
from virtd.conf.domain.disk import (
    AUTHENTICATED,
    BackingStore,
    DirSource,
    Disk,
    Encryption,
    NetworkSource,
    NvmeSource,
    SourceBase,
    VhostUserSource,
    VolumeSource,
)
from virtd.conf.domain.domain import Domain
from virtd.conf.domain.errors import conf_error, qemu_error, xml_error
from virtd.errors import VirtError

VENDOR_LENGTH, PRODUCT_LENGTH = 8, 16
SAFE = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_ .+")
MAX_THROTTLE = 1000000000000000
NAMES = ("hd", "sd", "vd", "xvd", "ubd")

# Limits that cannot be set both as a total and for one direction: (what the fields end with, libvirt's name).
LIMITS = (
    ("bytes", "", "bytes_sec"),
    ("iops", "", "iops_sec"),
    ("bytes", "_max", "bytes_sec_max"),
    ("iops", "_max", "iops_sec_max"),
)
BUS_ADDRESSES = dict.fromkeys(("ide", "fdc", "scsi", "sata"), "drive")

# What a disk that another process serves cannot have: libvirt's name for it, and where it is said.
NOT_VHOSTUSER = (
    ("cache", lambda d: d.driver.cache not in (None, "default")),
    ("error_policy", lambda d: {d.driver.error_policy, d.driver.rerror_policy} - {None, "default"}),
    ("io", lambda d: d.driver.io),
    ("ioeventfd", lambda d: d.driver.ioeventfd is not None),
    ("copy_on_read", lambda d: d.driver.copy_on_read is not None),
    ("discard", lambda d: d.driver.discard),
    ("iothread", lambda d: d.driver.iothread),
    ("detect_zeroes", lambda d: d.driver.detect_zeroes),
    ("metadata_cache", lambda d: d.driver.metadata_cache is not None),
    ("iotune", lambda d: d.iotune is not None and d.iotune.limited),
    ("backingStore", lambda d: d.backing is not None and not d.backing.end),
    ("encryption", lambda d: d.encryption is not None or d.source.encryption is not None),
    ("readonly", lambda d: d.readonly),
    ("shareable", lambda d: d.shareable),
    ("transient", lambda d: d.transient),
    ("serial", lambda d: d.serial),
    ("wwn", lambda d: d.wwn),
    ("vendor", lambda d: d.vendor),
    ("product", lambda d: d.product),
    ("auth", lambda d: d.auth is not None or d.source.auth is not None),
    ("geometry", lambda d: d.cylinders or d.heads or d.sectors),
    ("blockio", lambda d: d.logical_block_size or d.physical_block_size),
)


def check_limits(x: Context, disk: Disk) -> None:
    """A limit is for both directions together or for each."""
    tune = disk.iotune
    for what, suffix, name in LIMITS if tune is not None else ():
        total, read, write = (getattr(tune, f"{who}_{what}{suffix}") for who in ("total", "read", "write"))
        if total and (read or write):
            raise xml_error(f"total and read/write {name} cannot be set at the same time")


def check_lun(x: Context, disk: Disk) -> None:
    """A logical unit of the host's is handed through as it is."""
    source = disk.source
    if disk.device != "lun":
        return
    if isinstance(source, NetworkSource):
        if source.protocol != "iscsi":
            raise conf_error(f"disk device='lun' is not supported for protocol='{source.protocol}'")
    elif source is None or disk.type not in ("block", "volume"):
        raise conf_error("disk device='lun' is only valid for block type disk source")
    if disk.driver.type not in (None, "raw"):
        raise conf_error("disk device 'lun' must use 'raw' format")
    if source is not None and source.slices:
        raise conf_error("disk device 'lun' doesn't support storage slice")
    if disk.encryption is not None or (source is not None and source.encryption is not None):
        raise conf_error("disk device 'lun' doesn't support encryption")


def check_vhostuser(x: Context, disk: Disk) -> None:
    """A disk that another process serves is none of QEMU's business."""
    if not isinstance(disk.source, VhostUserSource):
        return
    if disk.bus != "virtio":
        raise conf_error("vhostuser disk supports only virtio bus")
    if disk.snapshot not in (None, "no"):
        raise conf_error("only snapshot=no is supported with vhostuser disk")
    for name, said in NOT_VHOSTUSER:
        if said(disk):
            raise conf_error(f"{name} is not supported with vhostuser disk")


def sources(disk: Disk) -> list[tuple[SourceBase, str | None]]:
    """The images of a chain, each with its format, outermost first."""
    found = [] if disk.source is None else [(disk.source, disk.driver.type)]
    store: BackingStore | None = disk.backing
    while store is not None and not store.end:
        if store.source is not None:
            found.append((store.source, store.format))
        store = store.backing
    return found


KNOWN_SECRETS = ("volume", "ceph", "iscsi", "tls", "vtpm")
SECRET_TYPES = {"iscsi": "iscsi", "rbd": "ceph"}


def check_secret_type(protocol: str, kind: str | None) -> None:
    """A protocol's password is a secret of its own kind.

    Raises:
        VirtError: VIR_ERR_CONFIG_UNSUPPORTED.
    """
    if kind not in KNOWN_SECRETS:
        raise conf_error(f"unknown secret type '{kind or '(null)'}'")
    if kind != SECRET_TYPES.get(protocol, kind):
        raise conf_error(f"invalid secret type '{kind}'")


def check_chain(x: Context, disk: Disk) -> None:
    """What each image of a chain can be told."""
    for number, (source, _) in enumerate(sources(disk)):
        network = source if isinstance(source, NetworkSource) else None
        auth = source.auth or (disk.auth if number == 0 and network is not None else None)
        if auth is not None and network is None and disk.type != "volume":
            raise conf_error("authentication is supported only for network backed disks")
        if auth is not None and network is not None and network.protocol not in AUTHENTICATED:
            raise conf_error(f"authentication is not supported for protocol '{network.protocol}'")
        if auth is not None and network is not None and auth.secret is not None:
            check_secret_type(network.protocol, auth.secret.type)
        encryption = source.encryption or (disk.encryption if number == 0 else None)
        if encryption is not None and encryption.cipher is not None:
            raise conf_error("supplying <cipher> for domain disk definition is unnecessary")
        if isinstance(source, NvmeSource) and not source.namespace:
            raise conf_error("NVMe namespace can't be zero")


def check_target(x: Context, disk: Disk) -> None:
    """A disk is somewhere in the guest."""
    if disk.target is None:
        name = disk.source_name
        if isinstance(disk.source, VolumeSource):
            name = f"pool = '{disk.source.pool}', volume = '{disk.source.volume}'"
        raise VirtError(c.VIR_ERR_NO_TARGET, name, domain=c.VIR_FROM_DOMAIN)


def check_source(x: Context, disk: Disk) -> None:
    """A disk is somewhere on the host; a drive may be empty."""
    if disk.empty and disk.device not in ("cdrom", "floppy"):
        raise VirtError(c.VIR_ERR_NO_SOURCE, disk.target, domain=c.VIR_FROM_DOMAIN)


def printable(text: str | None) -> bool:
    """Whether a text is of printable ASCII characters, or absent."""
    return text is None or all(" " <= letter <= "~" for letter in text)


COMMON: Rules = (
    check_target,
    Rule(lambda x, d: d.sgio == "unfiltered", "unfiltered sgio is no longer supported"),
    check_lun,
    Rule(
        lambda x, d: d.device != "lun" and d.source is not None and d.source.reservations is not None,
        "<reservations/> allowed only for lun devices",
    ),
    Rule(lambda x, d: d.device != "lun" and d.rawio is not None, "rawio can be used only with device='lun'"),
    Rule(lambda x, d: d.device != "lun" and d.sgio is not None, "sgio can be used only with device='lun'"),
    check_limits,
    Rule(
        lambda x, d: d.info.address and BUS_ADDRESSES.get(d.bus, d.info.address.kind) != d.info.address.kind,
        "Invalid address type '{d.info.address.kind}' for the disk '{d.target}' with the bus type '{d.bus}'",
    ),
    Rule(
        lambda x, d: d.model is not None and d.bus != "virtio",
        "disk model '{d.model}' not supported for bus '{d.bus}'",
    ),
    Rule(
        lambda x, d: (d.driver.queues or d.driver.queue_size) and d.bus != "virtio",
        "queues attribute in disk driver element is only supported by virtio-blk",
    ),
    Rule(
        lambda x, d: d.driver.event_idx is not None and d.bus != "virtio",
        "disk event_idx mode supported only for virtio bus",
    ),
    Rule(
        lambda x, d: d.driver.ioeventfd is not None and d.bus != "virtio",
        "disk ioeventfd mode supported only for virtio bus",
    ),
    Rule(
        lambda x, d: d.bus != "virtio" and d.driver.virtio.given(),
        "{v} driver option is only supported for virtio devices",
    ),
    check_vhostuser,
    check_chain,
    Rule(
        lambda x, d: d.source is not None and d.source.startup_policy and d.type == "network",
        "disk startupPolicy '{v}' is not allowed for disk of '{d.type}' type",
        XML,
    ),
    Rule(
        lambda x, d: (
            d.source is not None and d.source.startup_policy == "requisite" and d.device not in ("cdrom", "floppy")
        ),
        "disk startupPolicy 'requisite' is allowed only for cdrom or floppy",
        XML,
    ),
    Rule(
        lambda x, d: d.tray == "open" and d.device not in ("cdrom", "floppy"),
        "tray is only valid for cdrom and floppy",
    ),
    check_source,
    Rule(lambda x, d: not printable(d.vendor), "disk vendor is not printable string", XML),
    Rule(
        lambda x, d: d.vendor is not None and len(d.vendor) > VENDOR_LENGTH,
        f"disk vendor is more than {VENDOR_LENGTH} characters",
    ),
    Rule(lambda x, d: not printable(d.product), "disk product is not printable string", XML),
    Rule(
        lambda x, d: d.product is not None and len(d.product) > PRODUCT_LENGTH,
        f"disk product is more than {PRODUCT_LENGTH} characters",
    ),
    Rule(lambda x, d: d.device == "floppy" and d.bus != "fdc", "Invalid bus type '{d.bus}' for floppy disk", INTERNAL),
    Rule(lambda x, d: d.device != "floppy" and d.bus == "fdc", "Invalid bus type '{d.bus}' for disk", INTERNAL),
    Rule(lambda x, d: d.removable is not None and d.bus != "usb", "removable is only valid for usb disks", XML),
    Rule(
        lambda x, d: d.device != "floppy" and not d.target.startswith(NAMES),
        "Invalid harddisk device name: {d.target}",
        INTERNAL,
    ),
    Rule(
        lambda x, d: d.device == "floppy" and not d.target.startswith("fd"),
        "Invalid floppy device name: {d.target}",
        INTERNAL,
    ),
)
"""What every hypervisor's disks must obey."""


def iothread_ids(domain: Domain) -> set[int]:
    """The numbers of the I/O threads there are."""
    return {one.id for one in domain.iothread_ids if one.id} or set(range(1, (domain.iothreads or 0) + 1))


def check_throttle(x: Context, disk: Disk) -> None:
    """A group needs limits, and limits have a bound."""
    tune = disk.iotune
    if tune is None:
        return
    if tune.group is not None and not tune.limited:
        raise qemu_error("group_name can be configured only together with settings")
    if any(isinstance(getattr(tune, name), int) and getattr(tune, name) > MAX_THROTTLE for name in tune.fields):
        raise VirtError(
            c.VIR_ERR_ARGUMENT_UNSUPPORTED,
            f"block I/O throttle limit must be no more than {MAX_THROTTLE} using QEMU",
            domain=c.VIR_FROM_QEMU,
        )
    if tune.group is None:
        return
    for other in x.domain.disks:
        if other is not disk and other.iotune is not None and other.iotune.group == tune.group and other.iotune != tune:
            raise qemu_error(f"different iotunes for disks {other.target} and {disk.target}")


RAW_CONTAINERS = ("raw", None)
UNKNOWN_FORMATS = {
    "iso": "storage format 'iso' is not directly supported by QEMU, use 'raw' instead",
    "dir": "'directory' storage format is not directly supported by QEMU, use 'dir' disk type instead",
    "cow": "'cow' storage format is not supported",
}


def check_images(x: Context, disk: Disk) -> None:
    """What QEMU's block drivers can read."""
    for number, (source, image) in enumerate(sources(disk)):
        check_image(disk, source, image)
        check_encryption(source, source.encryption or (None if number else disk.encryption))


def check_image(disk: Disk, source: SourceBase, image: str | None) -> None:
    """One image of a chain.

    Raises:
        VirtError: of VIR_FROM_QEMU.
    """
    text: str | None = UNKNOWN_FORMATS.get(image or "")
    if isinstance(source, DirSource):
        if image != "fat":
            text = "storage type 'dir' requires use of storage format 'fat'"
        elif not disk.readonly:
            text = "virtual FAT storage can't be accessed in read-write mode"
    elif image == "fat":
        text = "storage format 'fat' is supported only with 'dir' storage type"
    elif isinstance(source, NetworkSource):
        text = text or network_fault(source)
    if text is not None:
        raise qemu_error(text)


def check_encryption(source: SourceBase, encryption: Encryption | None) -> None:
    """What QEMU and RBD's own library can decrypt.

    Raises:
        VirtError: of VIR_FROM_QEMU.
    """
    if encryption is None:
        return
    by_server = encryption.engine == "librbd"
    if encryption.format in ("default", "qcow"):
        raise qemu_error("old qcow/qcow2 encryption is not supported")
    if by_server and not (isinstance(source, NetworkSource) and source.protocol == "rbd"):
        raise qemu_error("librbd encryption is supported only with RBD backed disks")
    if encryption.format == "luks2" and not by_server:
        raise qemu_error("luks2 is currently not supported by the qemu encryption engine")


def network_fault(source: NetworkSource) -> str | None:
    """What is wrong with the servers of an image, None if nothing is."""
    if source.protocol == "nfs":
        if len(source.hosts) != 1:
            return "'nfs' protocol requires the usage of exactly one host"
        if source.hosts[0].transport not in (None, "tcp"):
            return "'nfs' host must use TCP protocol"
        if source.hosts[0].port is not None:
            return "port cannot be specified in 'nfs' protocol host"
    elif source.protocol == "tftp":
        return "'tftp' protocol is not supported with this QEMU binary"
    return None


def shared_format(disk: Disk) -> bool:
    """Whether two guests can use the image at once."""
    return disk.driver.type in ("raw", None)


QEMU: Rules = (
    Rule(
        lambda x, d: d.target[-1:].isdigit(),
        "invalid disk target '{d.target}', partitions can't appear in disk targets",
    ),
    Rule(
        lambda x, d: (d.cylinders and d.heads and d.sectors) and d.bus in ("usb", "sd"),
        "CHS geometry can not be set for '{d.bus}' bus",
    ),
    Rule(
        lambda x, d: d.translation and d.bus != "ide",
        "CHS translation mode can only be set for 'ide' bus not '{d.bus}'",
    ),
    Rule(
        lambda x, d: d.serial is not None and d.bus == "sd",
        "Serial property not supported for drive bus '{d.bus}'",
        INTERNAL,
    ),
    Rule(
        lambda x, d: d.bus == "virtio" and d.device in ("cdrom", "floppy"),
        "disk type of '{d.target}' does not support ejectable media",
    ),
    Rule(
        lambda x, d: d.driver.copy_on_read and d.readonly,
        "copy_on_read is not compatible with read-only disk '{d.target}'",
    ),
    Rule(
        lambda x, d: d.driver.copy_on_read and d.device in ("cdrom", "floppy"),
        "copy_on_read is not supported with removable disk '{d.target}'",
    ),
    Rule(lambda x, d: d.wwn and d.bus not in ("ide", "scsi"), "Only ide and scsi disk support wwn"),
    Rule(lambda x, d: (d.vendor or d.product) and d.bus != "scsi", "Only scsi disk supports vendor and product"),
    Rule(
        lambda x, d: d.device == "lun" and d.bus not in ("virtio", "scsi"),
        "disk device='lun' is not supported for bus='{d.bus}'",
    ),
    Rule(
        lambda x, d: d.device == "lun" and d.driver.copy_on_read,
        "copy_on_read is not compatible with 'lun' disk '{d.target}'",
    ),
    Rule(lambda x, d: d.device == "lun" and d.wwn, "Setting wwn is not supported for lun device"),
    Rule(
        lambda x, d: d.device == "lun" and (d.vendor or d.product),
        "Setting vendor or product is not supported for lun device",
    ),
    Rule(
        lambda x, d: d.rotation_rate and d.bus not in ("scsi", "ide", "sata"),
        "rotation rate is only valid for SCSI/IDE/SATA bus",
        INTERNAL,
    ),
    Rule(lambda x, d: d.rotation_rate and d.device != "disk", "rotation rate is only valid for disk device", INTERNAL),
    Rule(
        lambda x, d: d.bus == "usb" and d.info.address is not None and d.info.address.kind != "usb",
        "unexpected address type for usb disk",
        INTERNAL,
    ),
    Rule(
        lambda x, d: d.readonly and d.device == "disk" and d.bus in ("ide", "sata"),
        "readonly {d.bus} disks are not supported",
    ),
    Rule(
        lambda x, d: d.driver.io == "native" and d.driver.cache not in ("none", "directsync"),
        "io='native' needs either no disk cache or directsync cache mode",
    ),
    Rule(
        lambda x, d: d.serial is not None and d.bus == "scsi" and d.device == "lun",
        "scsi-block 'lun' devices do not support the serial property",
    ),
    Rule(
        lambda x, d: d.serial is not None and not SAFE.issuperset(d.serial),
        "driver serial '{d.serial}' contains unsafe characters",
        INTERNAL,
    ),
    Rule(
        lambda x, d: d.driver.iothread and d.bus != "virtio",
        "IOThreads not available for bus {d.bus} target {d.target}",
    ),
    Rule(
        lambda x, d: d.driver.iothread and d.driver.iothread not in iothread_ids(x.domain),
        "Disk iothread '{d.driver.iothread}' not defined in iothreadid",
    ),
    check_throttle,
    Rule(lambda x, d: d.transient and d.source_name is None, "transient disk '{d.target}' must not be empty"),
    Rule(lambda x, d: d.transient and d.readonly, "transient disk '{d.target}' must not be read-only"),
    Rule(lambda x, d: d.transient and d.type != "file", "transient disk supported only with 'file' type ({d.target})"),
    Rule(
        lambda x, d: d.transient and d.device != "disk",
        "transient disk supported only with 'disk' device ({d.target})",
    ),
    Rule(
        lambda x, d: d.transient and d.transient_share and d.bus not in ("usb", "virtio", "scsi"),
        "disk bus '{d.bus}' doesn't support transiend disk backing image sharing",
    ),
    Rule(
        lambda x, d: d.shareable and not shared_format(d),
        "shared access for disk '{d.target}' requires use of supported storage format",
    ),
    Rule(lambda x, d: d.driver.name != "qemu", "unsupported driver name '{d.driver.name}' for disk '{d.target}'"),
    check_images,
    Rule(
        lambda x, d: d.type == "vhostuser" and not x.shared_memory,
        "'vhostuser' requires shared memory",
    ),
)
"""What QEMU's disks must obey."""
