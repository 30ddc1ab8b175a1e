"""The smaller devices: balloon, RNG, watchdog, panic, hub, TPM, smartcard, shared memory, file systems and so on."""

from virtd import constants as c
from virtd.conf.domain.base import Device, Driver, Info, VirtioOptions
from virtd.conf.domain.chardev import CharSource
from virtd.conf.xml.model import Element, Model, View, attr, flag, inline, sub, subs, texts
from virtd.conf.xml.types import BITMAP, KIB, ON_OFF, POSITIVE, TEXT, UINT, ULONG, YES_NO, Choice, Integer, Size
from virtd.errors import VirtError

INTERNAL = c.VIR_ERR_INTERNAL_ERROR
UNSUPPORTED = c.VIR_ERR_CONFIG_UNSUPPORTED
VIRTIO_MODELS = Choice("virtio virtio-transitional virtio-non-transitional")
ANY_HEX8 = Integer(-1, 0xFF, base=0, template="0x%02X")
ANY_HEX16 = Integer(-1, 0xFFFF, base=0, template="0x%04X")
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
    stats_period = attr(
        "stats/@period", UINT, omit=0, bad=(c.VIR_ERR_XML_ERROR, "invalid statistics collection period")
    )
    info = inline(Info)
    driver = sub("driver", Driver)


class RngBackend(Model, by="@model"):
    """Where random numbers come from."""


class RandomBackend(RngBackend, kind="random"):
    """A device of the host."""

    path = attr(".", TEXT, default="/dev/random")


class EgdBackend(RngBackend, kind="egd"):
    """An entropy gathering daemon."""

    source = inline(CharSource)


class BuiltinBackend(RngBackend, kind="builtin"):
    """QEMU's own."""


class Rng(Device):
    """A random number generator."""

    model = attr("@model", VIRTIO_MODELS, required=True)
    rate_bytes = attr("rate/@bytes", POSITIVE, bad=(c.VIR_ERR_XML_ERROR, "invalid RNG rate bytes"))
    rate_period = attr("rate/@period", UINT)
    backend = sub("backend", RngBackend, keep=True)
    driver = sub("driver", Driver)


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

    model = attr("@model", Choice("isa pseries hyperv s390"), bad=(UNSUPPORTED, "unknown panic model '%s'"))


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


class RedirRule(Model):
    """Whether clients' devices of some kind may be redirected."""

    device_class = attr("@class", ANY_HEX8, omit=-1)
    vendor = attr("@vendor", ANY_HEX16, omit=-1)
    product = attr("@product", ANY_HEX16, omit=-1)
    version = attr("@version", omit="-1")
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
            raise VirtError(
                c.VIR_ERR_XML_ERROR, "host-certificates mode needs exactly three certificates", domain=c.VIR_FROM_DOMAIN
            )
        if self.database is not None and not self.database.startswith("/"):
            raise VirtError(c.VIR_ERR_XML_ERROR, f"expecting absolute path: {self.database}", domain=c.VIR_FROM_DOMAIN)


class PassthroughSmartcard(Smartcard, kind="passthrough"):
    """A card at the other end of a character device."""

    source = inline(CharSource)


class TpmBackend(Model, by="@type"):
    """What is behind a TPM."""


class PassthroughTpm(TpmBackend, kind="passthrough"):
    """The host's own TPM."""

    path = attr("device/@path", TEXT, default="/dev/tpm0")


class EmulatorTpm(TpmBackend, kind="emulator"):
    """An swtpm."""

    version = attr("@version", Choice("1.2 2.0"))
    persistent_state = attr("@persistent_state", YES_NO)
    debug = attr("@debug", UINT)
    secret = attr("encryption/@secret")
    pcr_sha1 = flag("active_pcr_banks/sha1")
    pcr_sha256 = flag("active_pcr_banks/sha256")
    pcr_sha384 = flag("active_pcr_banks/sha384")
    pcr_sha512 = flag("active_pcr_banks/sha512")


class ExternalTpm(TpmBackend, kind="external"):
    """A TPM that somebody else started, on a UNIX socket."""

    type = attr("source/@type", Choice("unix"))
    mode = attr("source/@mode", Choice("connect bind"))
    path = attr("source/@path")

    def loaded(self, el: Element, view: View) -> None:
        """It is somewhere."""
        if self.type is None:
            raise VirtError(c.VIR_ERR_XML_ERROR, "missing external TPM backend type", domain=c.VIR_FROM_DOMAIN)


class Tpm(Device):
    """A trusted platform module."""

    model = attr("@model", Choice("tpm-tis tpm-crb tpm-spapr tpm-spapr-proxy"))
    backend = sub("backend", TpmBackend)

    def loaded(self, el: Element, view: View) -> None:
        """A TPM has something behind it; the model says which version."""
        if self.backend is None:
            raise VirtError(c.VIR_ERR_XML_ERROR, "missing TPM device backend", domain=c.VIR_FROM_DOMAIN)
        self.model = self.model or "tpm-tis"
        if isinstance(self.backend, EmulatorTpm) and self.backend.version is None:
            self.backend.version = "1.2" if self.model == "tpm-tis" else "2.0"


class Shmem(Device):
    """Memory shared with other guests or a server."""

    name = attr("@name", required=True)
    role = attr("@role", Choice("peer master"))
    model = attr("model/@type", Choice("ivshmem ivshmem-plain ivshmem-doorbell"))
    size = attr("size", MIB)
    server_path = attr("server/@path")
    msi = flag("msi")
    msi_vectors = attr("msi/@vectors", UINT)
    msi_ioeventfd = attr("msi/@ioeventfd", ON_OFF)


class FilesystemDriver(Model):
    """How a shared directory is served."""

    type = attr("@type", Choice("path handle loop nbd ploop virtiofs"))
    format = attr("@format")
    wrpolicy = attr("@wrpolicy", Choice("immediate"))
    queue = attr("@queue", ULONG)
    virtio = inline(VirtioOptions)


class Filesystem(Device, refuse="binary idmap"):
    """A directory of the host in the guest."""

    type = attr("@type", Choice("mount block file template ram bind volume"), default="mount")
    accessmode = attr("@accessmode", Choice("passthrough mapped squash"), default="passthrough")
    model = attr("@model", VIRTIO_MODELS)
    multidevs = attr("@multidevs", Choice("remap forbid warn"))
    fmode = attr("@fmode")
    dmode = attr("@dmode")
    driver = sub("driver", FilesystemDriver)
    source_dir = attr("source/@dir")
    source_file = attr("source/@file")
    source_dev = attr("source/@dev")
    source_socket = attr("source/@socket")
    target = attr("target/@dir")
    readonly = flag("readonly")
    space_hard_limit = attr("space_hard_limit", Size("bytes", "bytes"))
    space_soft_limit = attr("space_soft_limit", Size("bytes", "bytes"))


class MemoryDevice(Device):
    """Memory that is plugged in, beyond what the machine has by itself; sizes in KiB."""

    model = attr("@model", Choice("dimm nvdimm virtio-pmem virtio-mem sgx-epc"), required=True)
    access = attr("@access", Choice("shared private"))
    discard = attr("@discard", YES_NO)
    uuid = attr("uuid")
    path = attr("source/path")
    pmem = flag("source/pmem")
    alignsize = attr("source/alignsize", KIB)
    nodemask = attr("source/nodemask", BITMAP)
    pagesize = attr("source/pagesize", KIB)
    size = attr("target/size", KIB)
    node = attr("target/node", UINT)
    label_size = attr("target/label/size", KIB)
    block = attr("target/block", KIB)
    requested = attr("target/requested", KIB)
    current = attr("target/current", KIB, live=True)
    readonly = flag("target/readonly")
    guest_address = attr("target/address/@base")


class Iommu(Device):
    """An IOMMU for the guest's devices."""

    model = attr("@model", Choice("intel smmuv3 virtio"), required=True)
    intremap = attr("driver/@intremap", ON_OFF)
    caching_mode = attr("driver/@caching_mode", ON_OFF)
    eim = attr("driver/@eim", ON_OFF)
    iotlb = attr("driver/@iotlb", ON_OFF)
    aw_bits = attr("driver/@aw_bits", UINT)


class Vsock(Device):
    """Sockets between the guest and the host."""

    model = attr("@model", VIRTIO_MODELS)
    auto = attr("cid/@auto", YES_NO)
    cid = attr("cid/@address", UINT)
    driver = sub("driver", Driver)


class Lease(Model):
    """A lease from a lock manager."""

    lockspace = attr("lockspace")
    key = attr("key")
    path = attr("target/@path")
    offset = attr("target/@offset", ULONG)
