"""<disk>: what the guest reads and writes as a block device, and where that is kept.

The kinds of DiskSource are libvirt's disk types. A backing chain is a source within a source.
"""

from virtd import constants as c
from virtd.conf.domain.base import (
    BYTES,
    HEX4,
    HEX8,
    HEX16,
    Device,
    DeviceSeclabel,
    Reconnect,
    VirtioOptions,
    real_labels,
)
from virtd.conf.domain.errors import conf_error, xml_error
from virtd.conf.secret.reference import SecretReference
from virtd.conf.storage.encryption import Encryption as VolumeEncryption
from virtd.conf.xml.model import Element, Model, View, attr, flag, inline, missing_attribute, part, sub, subs
from virtd.conf.xml.types import ON_OFF, POSITIVE, UINT, ULONG, WWN, YES_NO, Choice, Type
from virtd.errors import VirtError

TYPES = Choice("file block dir network volume nvme vhostuser")
DEVICES = Choice("disk cdrom floppy lun")
BUSES = Choice("ide fdc scsi virtio xen usb uml sata sd")
FORMATS = Choice("raw dir bochs cloop dmg iso vpc vdi fat vhd ploop cow qcow qcow2 qed vmdk")


class DriverFormat(Choice):
    """An image format; "aio" is what Xen called a raw one."""

    def parse(self, text: str) -> str:
        return super().parse("raw" if text == "aio" else text)


DRIVER_FORMATS = DriverFormat(FORMATS.names)
PROTOCOLS = Choice("nbd rbd sheepdog gluster iscsi http https ftp ftps tftp ssh vxhs nfs")
PORTS = {
    "nbd": 10809,
    "sheepdog": 7000,
    "gluster": 24007,
    "iscsi": 3260,
    "http": 80,
    "https": 443,
    "ftp": 21,
    "ftps": 990,
    "tftp": 69,
    "ssh": 22,
    "vxhs": 9999,
}
AUTHENTICATED = ("iscsi", "http", "https", "ftp", "ftps", "rbd", "ssh")
"""Those that know who asks."""
SPLIT_NAMES = ("gluster", "rbd")
"""Those whose images have a name in two parts; what is not there libvirt calls (null)."""
MODELS = Choice("virtio virtio-transitional virtio-non-transitional")


class Auth(Model):
    """Who we are to a storage server."""

    username = attr("@username", required=(c.VIR_ERR_XML_ERROR, "missing username for auth"))
    secret = sub("secret", SecretReference)

    def loaded(self, el: Element, view: View) -> None:
        """The password is a secret."""
        if self.secret is None:
            raise VirtError(c.VIR_ERR_XML_ERROR, "Missing <secret> element in auth", domain=c.VIR_FROM_STORAGE)


class Encryption(VolumeEncryption):
    """How the image is encrypted, and who decrypts it."""

    def loaded(self, el: Element, view: View) -> None:
        """QEMU does it, if nobody else is named."""
        super().loaded(el, view)
        self.engine = self.engine or "qemu"


class Port(Type[str]):
    """A port, by number or by the name of its service; names are kept as they are."""

    def parse(self, text: str) -> str:
        if not (text.isascii() and text.isdigit()):
            raise VirtError(c.VIR_ERR_INVALID_ARG, f"failed to parse port number '{text}'")
        return text


PORT = Port()


class Host(Model):
    """A storage server."""

    transport = attr(
        "@transport",
        Choice("tcp unix rdma"),
        omit="tcp",
        bad=(c.VIR_ERR_CONFIG_UNSUPPORTED, "unknown protocol transport type '%s'"),
    )
    name = attr("@name")
    port = attr("@port", PORT)
    socket = attr("@socket")


def check_host(host: Host) -> None:
    """A server has a name, or a socket.

    Raises:
        VirtError: VIR_ERR_XML_ERROR.
    """
    text = None
    if host.transport == "unix":
        if host.socket is None:
            text = "missing socket for unix transport"
    elif host.socket is not None:
        text = f"transport '{host.transport or 'tcp'}' does not support socket attribute"
    elif host.name is None:
        text = "missing name for host"
    if text is not None:
        raise xml_error(text)


class Cookie(Model):
    """A cookie for a web server."""

    name = attr("@name", required=True)
    value = attr(".")


class Slice(Model):
    """The part of a container file that is the image."""

    type = attr("@type", Choice("storage"))
    offset = attr("@offset", ULONG)
    size = attr("@size", ULONG)


class Reservations(Model):
    """SCSI persistent reservations, by a helper."""

    managed = attr("@managed", YES_NO)
    source_type = attr("source/@type", live=False)
    source_path = attr("source/@path")
    source_mode = attr("source/@mode")

    def loaded(self, el: Element, view: View) -> None:
        """A helper of the user's own is behind a socket that QEMU connects to."""
        if self.managed is None:
            raise missing_attribute("managed", el)
        source = el.find("source")
        kind = source.get("type") if source is not None else None
        if kind is None and self.managed:
            self.source_path = self.source_mode = None
            return
        for wrong, text in (
            (kind is None, "missing connection type for <reservations/>"),
            (self.source_path is None, "missing path for <reservations/>"),
            (self.source_mode is None, "missing connection mode for <reservations/>"),
            (kind != "unix", f"unsupported connection type for <reservations/>: {kind}"),
            (self.source_mode != "client", f"unsupported connection mode for <reservations/>: {self.source_mode}"),
        ):
            if wrong:
                raise VirtError(c.VIR_ERR_XML_ERROR, text, domain=c.VIR_FROM_STORAGE)


class SourceBase(Model, by="."):
    """Where an image is; the kinds are libvirt's storage types."""

    startup_policy = attr("@startupPolicy", Choice("mandatory requisite optional"))
    index = attr("@index", UINT, live=True)
    slices = subs("slices/slice", Slice)
    seclabels = subs("seclabel", DeviceSeclabel)
    auth = sub("auth", Auth)
    encryption = sub("encryption", Encryption)
    reservations = sub("reservations", Reservations)

    def loaded(self, el: Element, view: View) -> None:
        """That labelling was skipped is known only of a running guest."""
        self.seclabels = real_labels(self.seclabels, view)


class FileSource(SourceBase, kind="file"):
    """A file."""

    file = attr("@file")
    fdgroup = attr("@fdgroup")


class BlockSource(SourceBase, kind="block"):
    """A block device."""

    dev = attr("@dev")


class DirSource(SourceBase, kind="dir"):
    """A directory, shown as a FAT file system."""

    dir = attr("@dir")


class NetworkSource(SourceBase, kind="network"):
    """An image on a storage server."""

    protocol = attr("@protocol", PROTOCOLS, default="nbd", required=True)
    name = attr("@name")
    tls = attr("@tls", YES_NO)
    tls_hostname = attr("@tlsHostname")
    query = attr("@query")
    hosts = subs("host", Host)
    snapshot = attr("snapshot/@name")
    config = attr("config/@file")
    initiator = attr("initiator/iqn/@name")
    ssl_verify = attr("ssl/@verify", YES_NO)
    cookies = subs("cookies/cookie", Cookie, secure=True)
    readahead = attr("readahead/@size", ULONG)
    timeout = attr("timeout/@seconds", ULONG)
    identity_user = attr("identity/@user")
    identity_group = attr("identity/@group")

    def loaded(self, el: Element, view: View) -> None:
        """Servers have their protocol's port, iSCSI targets a unit."""
        super().loaded(el, view)
        if self.name is None and self.protocol != "nbd":
            raise xml_error("missing name for disk source")
        self.name = self.name or None
        if not self.tls:
            self.tls_hostname = None
        if self.protocol != "nfs":
            self.identity_user = self.identity_group = None
        if self.protocol in SPLIT_NAMES:
            pool, slash, image = (self.name or "").partition("/")
            if not (pool and slash):
                raise xml_error(f"can't split path '{self.name or ''}' into pool name and image name")
            self.name = f"{pool}/{image or '(null)'}"
        for host in self.hosts:
            check_host(host)
        default = PORTS.get(self.protocol)
        for host in self.hosts:
            if default is not None and host.port is None and host.transport in (None, "tcp"):
                host.port = str(default)
        if self.protocol == "iscsi" and self.name is not None and "/" not in self.name:
            self.name += "/0"


class VolumeSource(SourceBase, kind="volume"):
    """A volume of a storage pool."""

    pool = attr("@pool")
    volume = attr("@volume")
    mode = attr(
        "@mode",
        Choice("host direct"),
        bad=(c.VIR_ERR_CONFIG_UNSUPPORTED, "unknown source mode '%s' for volume type disk"),
    )
    found: "SourceBase | None" = None
    """What it is, when it has been looked up; not part of the XML."""

    def loaded(self, el: Element, view: View) -> None:
        """Both names are needed, or none."""
        super().loaded(el, view)
        if (self.pool is None) != (self.volume is None):
            raise xml_error("'pool' and 'volume' must be specified together for 'pool' type source")


class NvmeSource(SourceBase, kind="nvme"):
    """A namespace of an NVMe drive that QEMU drives itself."""

    type = attr("@type", Choice("pci"), required=(c.VIR_ERR_XML_ERROR, "missing 'type' attribute to disk source"))
    managed = attr("@managed", YES_NO)
    namespace = attr(
        "@namespace", ULONG, required=(c.VIR_ERR_XML_ERROR, "missing 'namespace' attribute to disk source")
    )
    domain = attr("address/@domain", HEX16, default=0)
    bus = attr("address/@bus", HEX8, default=0)
    slot = attr("address/@slot", HEX8, default=0)
    function = attr("address/@function", HEX4, default=0)


class VhostUserSource(SourceBase, kind="vhostuser"):
    """A socket of a process that serves the disk."""

    type = attr("@type", required=(c.VIR_ERR_XML_ERROR, "missing 'type' attribute for vhostuser disk source"))
    path = attr("@path")
    mode = attr("@mode")
    reconnect = sub("reconnect", Reconnect)

    def loaded(self, el: Element, view: View) -> None:
        """It is a UNIX socket, and somewhere."""
        super().loaded(el, view)
        if self.type != "unix":
            raise xml_error("invalid 'type' attribute for vhostuser disk source")
        if self.path is None:
            raise xml_error("missing 'path' attribute for vhostuser disk source")


class BackingStore(Model):
    """The image below another one. Without a type it is the end of the chain."""

    type = attr("@type", TYPES, bad=(c.VIR_ERR_XML_ERROR, "unknown storage source type '%s'"))
    index = attr("@index", UINT, live=True)
    format = attr("format/@type", FORMATS, bad=(c.VIR_ERR_XML_ERROR, "unknown storage source format '%s'"))
    source = sub("source", SourceBase, by="type")
    backing: "BackingStore | None"

    @classmethod
    def read(cls, el: Element, view: View) -> "BackingStore":
        """An image has a format and is somewhere; what stands in an element without a type is nothing.

        Raises:
            VirtError: for what is missing, and then for what is wrong.
        """
        if el.get("type") is None:
            return cls()
        form = el.find("format")
        if form is None or form.get("type") is None:
            raise xml_error("missing disk backing store format")
        if el.find("source") is None:
            raise xml_error("missing disk backing store source")
        return super().read(el, view)

    @property
    def end(self) -> bool:
        """Whether there is nothing below."""
        return self.type is None


# The element contains itself, so this declaration needs the class.
BackingStore.declare("backing", sub("backingStore", BackingStore, keep=True))


class IoTune(Model):
    """Limits of throughput and operations; bytes and seconds."""

    total_bytes = attr("total_bytes_sec", ULONG, omit=0)
    read_bytes = attr("read_bytes_sec", ULONG, omit=0)
    write_bytes = attr("write_bytes_sec", ULONG, omit=0)
    total_iops = attr("total_iops_sec", ULONG, omit=0)
    read_iops = attr("read_iops_sec", ULONG, omit=0)
    write_iops = attr("write_iops_sec", ULONG, omit=0)
    total_bytes_max = attr("total_bytes_sec_max", ULONG, omit=0)
    read_bytes_max = attr("read_bytes_sec_max", ULONG, omit=0)
    write_bytes_max = attr("write_bytes_sec_max", ULONG, omit=0)
    total_iops_max = attr("total_iops_sec_max", ULONG, omit=0)
    read_iops_max = attr("read_iops_sec_max", ULONG, omit=0)
    write_iops_max = attr("write_iops_sec_max", ULONG, omit=0)
    size_iops = attr("size_iops_sec", ULONG, omit=0)
    group = attr("group_name")
    total_bytes_max_length = attr("total_bytes_sec_max_length", ULONG, omit=0)
    read_bytes_max_length = attr("read_bytes_sec_max_length", ULONG, omit=0)
    write_bytes_max_length = attr("write_bytes_sec_max_length", ULONG, omit=0)
    total_iops_max_length = attr("total_iops_sec_max_length", ULONG, omit=0)
    read_iops_max_length = attr("read_iops_sec_max_length", ULONG, omit=0)
    write_iops_max_length = attr("write_iops_sec_max_length", ULONG, omit=0)

    @property
    def limited(self) -> bool:
        """Whether anything is limited."""
        return any(isinstance(getattr(self, name), int) and getattr(self, name) for name in self.fields)


class MetadataCache(Model):
    """How much of the image format's own tables is kept in memory."""

    max_size = attr("max_size", BYTES)


class DiskDriver(Model):
    """How QEMU treats the disk."""

    name = attr("@name")
    type = attr("@type", DRIVER_FORMATS, bad=(c.VIR_ERR_CONFIG_UNSUPPORTED, "unknown driver format value '%s'"))
    cache = attr("@cache", Choice("default none writethrough writeback directsync unsafe"), omit="default")
    error_policy = attr("@error_policy", Choice("default stop report ignore enospace"), omit="default")
    rerror_policy = attr("@rerror_policy", Choice("default stop report ignore"), omit="default")
    io = attr("@io", Choice("native threads io_uring"))
    ioeventfd = attr("@ioeventfd", ON_OFF)
    event_idx = attr("@event_idx", ON_OFF)
    copy_on_read = attr("@copy_on_read", ON_OFF)
    discard = attr("@discard", Choice("unmap ignore"))
    iothread = attr("@iothread", UINT)
    detect_zeroes = attr("@detect_zeroes", Choice("off on unmap"))
    queues = attr("@queues", POSITIVE)
    queue_size = attr("@queue_size", POSITIVE)
    virtio = inline(VirtioOptions)
    metadata_cache = sub("metadata_cache", MetadataCache)


def _geometry(disk: "Disk", view: View) -> bool:
    return bool(disk.cylinders and disk.heads and disk.sectors)


class Disk(Device):
    """A disk, CD-ROM, floppy or SCSI logical unit."""

    type = attr("@type", TYPES, default="file")
    device = attr("@device", DEVICES, default="disk")
    model = attr("@model", MODELS)
    rawio = attr("@rawio", YES_NO)
    sgio = attr("@sgio", Choice("filtered unfiltered"))
    snapshot = attr("@snapshot", Choice("no internal external manual"))
    driver = part("driver", DiskDriver)
    auth = sub("auth", Auth)
    source = sub("source", SourceBase, by="type")
    backing = sub("backingStore", BackingStore, keep=True)
    backenddomain = attr("backenddomain/@name")
    cylinders = attr("geometry/@cyls", UINT, when=_geometry)
    heads = attr("geometry/@heads", UINT, when=_geometry)
    sectors = attr("geometry/@secs", UINT, when=_geometry)
    translation = attr("geometry/@trans", Choice("none auto lba"), when=_geometry)
    logical_block_size = attr("blockio/@logical_block_size", UINT, omit=0)
    physical_block_size = attr("blockio/@physical_block_size", UINT, omit=0)
    target = attr("target/@dev")
    bus = attr("target/@bus", BUSES)
    tray = attr("target/@tray", Choice("closed open"), omit="closed")
    removable = attr("target/@removable", ON_OFF)
    rotation_rate = attr("target/@rotation_rate", UINT)
    iotune = sub("iotune", IoTune)
    readonly = flag("readonly")
    shareable = flag("shareable")
    transient = flag("transient")
    transient_share = attr("transient/@shareBacking", YES_NO)
    serial = attr("serial")
    wwn = attr("wwn", WWN)
    vendor = attr("vendor")
    product = attr("product")
    encryption = sub("encryption", Encryption)

    def loaded(self, el: Element, view: View) -> None:
        """A disk is encrypted in one place, and has one owner's name."""
        if self.auth is not None and self.source is not None and self.source.auth is not None:
            raise conf_error("an <auth> definition already found for disk source")
        if self.encryption is not None and self.source is not None and self.source.encryption is not None:
            raise conf_error("an <encryption> definition already found for disk source")

    @property
    def empty(self) -> bool:
        """Whether there is no medium."""
        return self.source_name is None if self.type in ("file", "block", "dir") else self.source is None

    @property
    def source_name(self) -> str | None:
        """The path, device or name of the source, for messages."""
        source = self.source
        for name in ("file", "dev", "dir", "name", "volume"):
            value = getattr(source, name, None)
            if isinstance(value, str) and value:
                return value
        return None
