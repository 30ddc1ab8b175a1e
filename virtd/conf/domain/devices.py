"""The smaller devices: balloon, RNG, watchdog, panic, hub, TPM, smartcard, shared memory, file systems and so on."""

import re

from virtd import constants as c
from virtd.conf.domain.base import Device, Driver, Info, VirtioOptions
from virtd.conf.domain.chardev import CharSource, DbusSource
from virtd.conf.domain.errors import conf_error, internal_error, xml_error
from virtd.conf.xml.model import Element, Model, View, attr, flag, inline, sub, subs, texts
from virtd.conf.xml.types import (
    BITMAP,
    INT,
    KIB,
    NATURAL,
    ON_OFF,
    POSITIVE,
    TEXT,
    UINT,
    ULONG,
    UUID,
    YES_NO,
    Choice,
    Integer,
    Size,
    Type,
)
from virtd.errors import VirtError

INTERNAL = c.VIR_ERR_INTERNAL_ERROR
UNSUPPORTED = c.VIR_ERR_CONFIG_UNSUPPORTED
VIRTIO_MODELS = Choice("virtio virtio-transitional virtio-non-transitional")


class UsbClass(Integer):
    """A class of USB devices, -1 for any."""

    def parse(self, text: str) -> int:
        value = super().parse(text)
        if not -1 <= value <= 0xFF:
            words = f"Invalid USB Class code 0x{value:x}"
            raise VirtError(INTERNAL, words, domain=c.VIR_FROM_DOMAIN)
        return value


ANY_HEX8 = UsbClass(-(1 << 31), (1 << 31) - 1, base=0, template="0x%02X")
ANY_HEX16 = Integer(-(1 << 31), (1 << 31) - 1, base=0, template="0x%04X")
MIB = Size("M", "MiB")


class Balloon(Device):
    """How the guest gives memory back."""

    model = attr(
        "@model",
        Choice("virtio xen none virtio-transitional virtio-non-transitional"),
        required=True,
    )
    autodeflate = attr("@autodeflate", ON_OFF)
    free_page_reporting = attr("@freePageReporting", ON_OFF)
    stats_period = attr("stats/@period", NATURAL, omit=0)
    info = inline(Info)
    driver = sub("driver", Driver)

    def loaded(self, el: Element, view: View) -> None:
        """No balloon is nowhere."""
        if self.model == "none":
            self.info = Info()


class RngBackend(
    Model,
    by="@model",
    bad=(UNSUPPORTED, "unknown RNG backend model '%s'"),
    missing=(c.VIR_ERR_XML_ERROR, "missing RNG device backend model"),
):
    """Where random numbers come from."""


class RandomBackend(RngBackend, kind="random"):
    """A device of the host."""

    path = attr(".", TEXT, default="/dev/random")


class EgdBackend(RngBackend, kind="egd"):
    """An entropy gathering daemon."""

    source = inline(CharSource)

    def loaded(self, el: Element, view: View) -> None:
        """It is connected to something."""
        if el.get("type") is None:
            raise xml_error("missing EGD backend type")


class BuiltinBackend(RngBackend, kind="builtin"):
    """QEMU's own."""


class Rng(Device):
    """A random number generator."""

    model = attr(
        "@model",
        VIRTIO_MODELS,
        required=(c.VIR_ERR_XML_ERROR, "missing RNG device model"),
        bad=(UNSUPPORTED, "unknown RNG model '%s'"),
    )
    rate_bytes = attr("rate/@bytes", UINT, omit=0, bad=(c.VIR_ERR_XML_ERROR, "invalid RNG rate bytes value"))
    rate_period = attr("rate/@period", UINT, omit=0)
    backend = sub("backend", RngBackend, keep=True, only=(c.VIR_ERR_XML_ERROR, "only one RNG backend is supported"))
    driver = sub("driver", Driver)

    def loaded(self, el: Element, view: View) -> None:
        """Random numbers come from somewhere. A period belongs to a rate."""
        if not self.rate_bytes:
            self.rate_period = None
        if self.backend is None:
            raise xml_error("only one RNG backend is supported")


class Watchdog(Device):
    """A timer that acts unless the guest resets it."""

    model = attr(
        "@model",
        Choice("i6300esb ib700 diag288"),
        required=(INTERNAL, "watchdog must contain model name"),
        bad=(UNSUPPORTED, "unknown watchdog model '%s'"),
    )
    action = attr(
        "@action",
        Choice("reset shutdown poweroff pause dump none inject-nmi"),
        default="reset",
        bad=(UNSUPPORTED, "unknown watchdog action '%s'"),
    )


class Panic(Device):
    """How the guest reports that it crashed."""

    model = attr(
        "@model", Choice("isa pseries hyperv s390"), default="isa", bad=(UNSUPPORTED, "unknown panic model '%s'")
    )


class Hub(Device):
    """A USB hub."""

    type = attr(
        "@type",
        Choice("usb"),
        required=(INTERNAL, "missing hub device type"),
        bad=(UNSUPPORTED, "unknown hub device type '%s'"),
    )


class RedirDevice(Device):
    """A USB device of a client."""

    bus = attr("@bus", Choice("usb"), default="usb", bad=(UNSUPPORTED, "unknown redirdev bus '%s'"))
    source = inline(CharSource)

    def loaded(self, el: Element, view: View) -> None:
        """It is connected to something."""
        if el.get("type") is None:
            raise internal_error("missing type in redirdev")
        if isinstance(self.source, DbusSource) and self.source.channel is None:
            self.source.channel = "org.qemu.usbredir"


class UsbVersion(Type[str]):
    """A version in two numbers, the second with two digits; -1 for any."""

    def parse(self, text: str) -> str:
        major, dot, minor = text.partition(".")
        if text == "-1":
            return text
        if not (dot and major.isdigit() and minor.isdigit() and text.isascii() and len(text) < 8):
            raise ValueError
        return f"{int(major)}.{minor.ljust(2, '0')}"


class RedirRule(Model):
    """Whether clients' devices of some kind may be redirected."""

    device_class = attr("@class", ANY_HEX8, omit=-1)
    vendor = attr("@vendor", ANY_HEX16, omit=-1)
    product = attr("@product", ANY_HEX16, omit=-1)
    version = attr("@version", UsbVersion(), omit="-1", bad=(c.VIR_ERR_XML_ERROR, "Cannot parse USB device version %s"))
    allow = attr("@allow", YES_NO, required=True)


class RedirFilter(Model):
    """Which of clients' USB devices may be redirected."""

    rules = subs("usbdev", RedirRule)


class Smartcard(Device, by="@mode"):
    """A smartcard in a reader."""


class HostSmartcard(Smartcard, kind="host"):
    """The host's own card."""


class CertificateSmartcard(Smartcard, kind="host-certificates"):
    """A card made of certificates of the host."""

    certificates = texts("certificate", TEXT)
    database = attr("database")

    def loaded(self, el: Element, view: View) -> None:
        """Three keys are on a card."""
        if len(self.certificates) != 3:
            raise xml_error("host-certificates mode needs exactly three certificates")
        if self.database is not None and not self.database.startswith("/"):
            raise xml_error(f"expecting absolute path: {self.database}")


class PassthroughSmartcard(Smartcard, kind="passthrough"):
    """A card at the other end of a character device."""

    source = inline(CharSource)

    def loaded(self, el: Element, view: View) -> None:
        """It is connected to something."""
        if el.get("type") is None:
            raise xml_error("passthrough mode requires a character device type attribute")


class TpmBackend(Model, by="@type"):
    """What is behind a TPM."""


class PassthroughTpm(TpmBackend, kind="passthrough"):
    """The host's own TPM."""

    path = attr("device/@path", TEXT, default="/dev/tpm0")


BANKS = ("sha1", "sha256", "sha384", "sha512")
NO_SECRET = "0" * 32


class EmulatorTpm(TpmBackend, kind="emulator"):
    """An swtpm."""

    version = attr("@version", Choice("1.2 2.0"))
    persistent_state = attr("@persistent_state", YES_NO, omit=False)
    secret = attr("encryption/@secret")
    pcr_sha1 = flag("active_pcr_banks/sha1")
    pcr_sha256 = flag("active_pcr_banks/sha256")
    pcr_sha384 = flag("active_pcr_banks/sha384")
    pcr_sha512 = flag("active_pcr_banks/sha512")

    def loaded(self, el: Element, view: View) -> None:
        """Measurements are kept in banks that there are; a secret has a name."""
        for bank in el.iterfind("active_pcr_banks/*"):
            if bank.tag not in BANKS:
                raise conf_error(f"Unsupported PCR banks '{bank.tag}'")
        try:
            UUID.parse(self.secret or NO_SECRET)
        except ValueError:
            raise internal_error(f"Unable to parse secret uuid '{self.secret}'") from None

    @property
    def banks(self) -> bool:
        """Whether it is said which measurements are kept."""
        return self.pcr_sha1 or self.pcr_sha256 or self.pcr_sha384 or self.pcr_sha512


class ExternalTpm(TpmBackend, kind="external"):
    """A TPM that somebody else started, on a UNIX socket."""

    type = attr("source/@type")
    mode = attr("source/@mode", Choice("connect bind"))
    path = attr("source/@path")

    def loaded(self, el: Element, view: View) -> None:
        """It is somewhere."""
        if self.type is None:
            raise xml_error("missing external TPM backend type")
        self.mode = self.mode or "connect"


class Tpm(Device):
    """A trusted platform module."""

    model = attr("@model", Choice("tpm-tis tpm-crb tpm-spapr spapr-tpm-proxy"))
    backend = sub("backend", TpmBackend, only=(c.VIR_ERR_XML_ERROR, "only one TPM backend is supported"))

    def loaded(self, el: Element, view: View) -> None:
        """A TPM has something behind it; the model says which version."""
        if self.backend is None:
            raise xml_error("missing TPM device backend")
        self.model = self.model or "tpm-tis"
        if isinstance(self.backend, EmulatorTpm) and self.backend.version is None:
            self.backend.version = "1.2" if self.model == "tpm-tis" else "2.0"


SHMEM_SIZE = 4


class Shmem(Device):
    """Memory shared with other guests or a server."""

    name = attr("@name", required=(c.VIR_ERR_XML_ERROR, "shmem element must contain 'name' attribute"))
    role = attr("@role", Choice("peer master"))
    model = attr("model/@type", Choice("ivshmem ivshmem-plain ivshmem-doorbell"))
    size = attr("size", MIB)
    server = flag("server")
    server_path = attr("server/@path")
    msi = flag("msi")
    msi_vectors = attr("msi/@vectors", UINT)
    msi_ioeventfd = attr("msi/@ioeventfd", ON_OFF)

    def loaded(self, el: Element, view: View) -> None:
        """What each model has if nothing is said."""
        if self.model is None:
            self.model = "ivshmem"
        if self.msi and not self.server:
            raise xml_error("msi option is only supported with a server")
        self.size = self.size or None
        if self.model != "ivshmem-doorbell":
            self.size = self.size or SHMEM_SIZE
        else:
            self.msi = True
            self.msi_ioeventfd = True if self.msi_ioeventfd is None else self.msi_ioeventfd


class FilesystemDriver(Model):
    """How a shared directory is served."""

    type = attr("@type", Choice("path handle loop nbd ploop virtiofs"))
    format = attr("@format")
    wrpolicy = attr("@wrpolicy", Choice("immediate"))
    queue = attr("@queue", ULONG)
    virtio = inline(VirtioOptions)


class Virtiofsd(Model):
    """How the daemon behind virtiofs works."""

    path = attr("@path")
    xattr = attr("@xattr", ON_OFF)
    cache = attr("cache/@mode", Choice("none always"))
    sandbox = attr("sandbox/@mode", Choice("namespace chroot"))
    posix_lock = attr("lock/@posix", ON_OFF)
    flock = attr("lock/@flock", ON_OFF)
    thread_pool_size = attr("thread_pool/@size", INT)


OCTAL = re.compile(r"0*[0-7]{1,3}", re.ASCII)


class FileMode(Type[str]):
    """Permissions in octal; none are said by 0."""

    def parse(self, text: str) -> str:
        if not OCTAL.fullmatch(text):
            raise ValueError("Expected non-negative integer value")
        return f"{int(text, 8):04o}" if int(text, 8) else ""


FILE_MODE = FileMode()


# What says where each type of directory comes from.
FILESYSTEM_SOURCES = {
    "mount": ("dir", "socket"),
    "bind": ("dir",),
    "file": ("file",),
    "block": ("dev",),
    "ram": ("usage",),
}


class Filesystem(Device):
    """A directory of the host in the guest."""

    type = attr("@type", Choice("mount block file template ram bind volume"), default="mount")
    accessmode = attr("@accessmode", Choice("passthrough mapped squash"))
    model = attr("@model", VIRTIO_MODELS)
    multidevs = attr("@multidevs", Choice("remap forbid warn"))
    fmode = attr("@fmode", FILE_MODE, omit="")
    dmode = attr("@dmode", FILE_MODE, omit="")
    driver = sub("driver", FilesystemDriver)
    binary = sub("binary", Virtiofsd)
    source_dir = attr("source/@dir")
    source_file = attr("source/@file")
    source_dev = attr("source/@dev")
    source_socket = attr("source/@socket")
    target = attr("target/@dir")
    readonly = flag("readonly")
    info = inline(Info)
    space_hard_limit = attr("space_hard_limit", Size("bytes", "bytes"), omit=0)
    space_soft_limit = attr("space_soft_limit", Size("bytes", "bytes"), omit=0)

    def loaded(self, el: Element, view: View) -> None:
        """Files are shared as they are, unless a daemon of the user's own decides."""
        if self.accessmode is None and self.source_socket is None:
            self.accessmode = "passthrough"
        if self.driver is not None and self.driver.type is None:
            self.driver.format = self.driver.wrpolicy = None
        if self.driver is None or self.driver.type != "virtiofs":
            self.binary = None
            if self.driver is not None:
                self.driver.queue = None
        source = el.find("source")
        names = FILESYSTEM_SOURCES.get(self.type, ())
        if names and (source is None or not any(source.get(name) for name in (*names, "socket"))):
            if self.type == "ram" and source is not None:
                raise xml_error("missing 'usage' attribute for RAM filesystem")
            raise VirtError(c.VIR_ERR_NO_SOURCE, self.target, domain=c.VIR_FROM_DOMAIN)
        if self.target is None:
            raise VirtError(
                c.VIR_ERR_NO_TARGET,
                source.get(names[0]) if source is not None and names else None,
                domain=c.VIR_FROM_DOMAIN,
            )


# What can be said of each kind of memory device.
MEMORY_FIELDS = {
    "dimm": ("pagesize", "nodemask"),
    "nvdimm": ("path", "pmem", "alignsize", "label_size", "readonly", "uuid"),
    "virtio-pmem": ("path",),
    "virtio-mem": ("pagesize", "nodemask", "block"),
    "sgx-epc": ("nodemask",),
}


MIN_LABEL = 128
"""The smallest label of an NVDIMM, KiB."""


class MemoryDevice(Device):
    """Memory that is plugged in, beyond what the machine has by itself; sizes in KiB."""

    model = attr("@model", Choice("dimm nvdimm virtio-pmem virtio-mem sgx-epc"), required=True)
    access = attr("@access", Choice("shared private"))
    discard = attr("@discard", YES_NO)
    uuid = attr("uuid", UUID)
    path = attr("source/path")
    alignsize = attr("source/alignsize", KIB)
    pmem = flag("source/pmem")
    nodemask = attr("source/nodemask", BITMAP)
    pagesize = attr("source/pagesize", KIB)
    size = attr("target/size", KIB)
    node = attr("target/node", UINT)
    label_size = attr("target/label/size", KIB)
    block = attr("target/block", KIB)
    requested = attr("target/requested", KIB)
    current = attr("target/current", KIB, live=True)
    readonly = flag("target/readonly")

    def loaded(self, el: Element, view: View) -> None:
        """What each model has; the rest is not said of it."""
        has = MEMORY_FIELDS[self.model or ""]
        for name in ("path", "pmem", "alignsize", "pagesize", "nodemask", "label_size", "block", "readonly", "uuid"):
            if name not in has:
                self.__dict__.pop(name, None)
        if el.find("target") is None:
            raise xml_error("missing <target> element for <memory> device")
        if self.size is None:
            raise VirtError(c.VIR_ERR_XML_ERROR, "missing element or attribute './size'", domain=c.VIR_FROM_XML)
        if self.model == "virtio-pmem":
            self.access = self.access or "shared"
        if self.model == "nvdimm" and self.label_size is not None:
            if self.label_size < MIN_LABEL:
                raise xml_error(f"nvdimm label must be at least {MIN_LABEL}KiB")
            if self.label_size >= self.size:
                raise xml_error("label size must be smaller than NVDIMM size")
        if self.model == "virtio-mem":
            self.requested = self.requested or 0
        else:
            self.requested = None


class Iommu(Device):
    """An IOMMU for the guest's devices."""

    model = attr("@model", Choice("intel smmuv3 virtio"), required=True)
    intremap = attr("driver/@intremap", ON_OFF)
    caching_mode = attr("driver/@caching_mode", ON_OFF)
    eim = attr("driver/@eim", ON_OFF)
    iotlb = attr("driver/@iotlb", ON_OFF)
    aw_bits = attr("driver/@aw_bits", UINT)


class NvramDevice(Device):
    """A POWER machine's memory of settings."""


class Vsock(Device):
    """Sockets between the guest and the host."""

    model = attr("@model", VIRTIO_MODELS)
    auto = attr("cid/@auto", YES_NO)
    cid = attr("cid/@address", POSITIVE)
    info = inline(Info)
    driver = sub("driver", Driver)

    def loaded(self, el: Element, view: View) -> None:
        """The number is chosen at start, if it is not given."""
        self.model = self.model or "virtio"
        if self.auto is None:
            self.auto = self.cid is None


class Lease(Model):
    """A lease from a lock manager."""

    lockspace = attr("lockspace")
    key = attr("key")
    path = attr("target/@path")

    def loaded(self, el: Element, view: View) -> None:
        """It is of something, and somewhere."""
        for name, value in (("key", self.key), ("target", self.path)):
            if value is None:
                raise xml_error(f"Missing '{name}' element for lease")

    offset = attr("target/@offset", ULONG, omit=0)
