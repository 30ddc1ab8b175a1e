"""Devices of which little is to be said: balloon, RNG, watchdog, panic, hub, shared memory, IOMMU, vsock, leases."""

from virtd import constants as c
from virtd.conf.domain.base import Device, Driver, Info
from virtd.conf.domain.chardev import CharSource
from virtd.conf.domain.errors import xml_error
from virtd.conf.xml.model import Element, Model, View, attr, flag, inline, sub
from virtd.conf.xml.types import (
    NATURAL,
    ON_OFF,
    POSITIVE,
    TEXT,
    UINT,
    ULONG,
    YES_NO,
    Choice,
    Size,
)

INTERNAL = c.VIR_ERR_INTERNAL_ERROR
UNSUPPORTED = c.VIR_ERR_CONFIG_UNSUPPORTED
VIRTIO_MODELS = Choice("virtio virtio-transitional virtio-non-transitional")


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
