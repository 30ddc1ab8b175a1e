"""What devices have in common: where they are plugged in, their alias, their place in the boot order."""

from collections.abc import Sequence

from virtd import constants as c
from virtd.conf.domain.errors import internal_error
from virtd.conf.xml.model import Element, Model, View, attr, inline, missing_attribute, sub
from virtd.conf.xml.types import ON_OFF, POSITIVE, UINT, YES_NO, Integer, Size
from virtd.errors import VirtError

HEX8 = Integer(0, (1 << 32) - 1, base=0, template="0x%02x")
HEX16 = Integer(0, (1 << 32) - 1, base=0, template="0x%04x")
HEX4 = Integer(0, (1 << 32) - 1, base=0, template="0x%x")
HEX32 = Integer(0, (1 << 64) - 1, base=16, template="0x%08x")
HEX_FID = Integer(0, (1 << 32) - 1, base=0, template="0x%08x")
HEX64 = Integer(0, (1 << 64) - 1, base=0, template="0x%x")
BYTES = Size("bytes", "bytes")


class Address(
    Model,
    by="@type",
    bad=(c.VIR_ERR_CONFIG_UNSUPPORTED, "unknown address type '%s'"),
    missing=(c.VIR_ERR_INTERNAL_ERROR, "No type specified for device address"),
):
    """Where a device is plugged in; the kinds are libvirt's address types."""


def _placed(address: "PciAddress", view: View) -> bool:
    return address.host or not address.empty


class Zpci(Model):
    """What an IBM machine calls a PCI device."""

    uid = attr("@uid", HEX16)
    fid = attr("@fid", HEX_FID)


class PciAddress(Address, kind="pci"):
    """A PCI address. All zeros (the host bridge's own) stands for one that is still to be found."""

    domain = attr("@domain", HEX16, default=0, when=_placed)
    bus = attr("@bus", HEX8, default=0, when=_placed)
    slot = attr("@slot", HEX8, default=0, when=_placed)
    function = attr("@function", HEX4, default=0, when=_placed)
    multifunction = attr("@multifunction", ON_OFF)
    zpci = sub("zpci", Zpci)

    def loaded(self, el: Element, view: View) -> None:
        """Check the bounds, as far as they do not depend on the machine."""
        for name, limit in (("domain", 0xFFFF), ("bus", 0xFF), ("slot", 0x1F), ("function", 7)):
            value = getattr(self, name)
            if value > limit:
                raise VirtError(
                    c.VIR_ERR_XML_ERROR,
                    f"Invalid PCI address {name}=0x{value:x}, must be <= {hex(limit) if limit > 7 else limit}",
                )

    host = False
    """Whether it is an address of the host, which is written even if it is all zeros."""

    @property
    def empty(self) -> bool:
        """Whether it is still to be found."""
        return not (self.domain or self.bus or self.slot)

    @property
    def has_zpci(self) -> bool:
        """Whether an IBM machine's name is given."""
        return self.zpci is not None

    @property
    def key(self) -> tuple[int, int, int, int]:
        """Domain, bus, slot, function."""
        return self.domain, self.bus, self.slot, self.function


class DriveAddress(Address, kind="drive"):
    """A place on a disk controller."""

    controller = attr("@controller", UINT, default=0)
    bus = attr("@bus", UINT, default=0)
    target = attr("@target", UINT, default=0)
    unit = attr("@unit", UINT, default=0)

    @property
    def key(self) -> tuple[int, int, int, int]:
        """Controller, bus, target, unit."""
        return self.controller, self.bus, self.target, self.unit


class VirtioSerialAddress(Address, kind="virtio-serial"):
    """A port of a virtio-serial controller; port 0 is still to be found, but for a console."""

    controller = attr("@controller", UINT, default=0)
    bus = attr("@bus", UINT, default=0)
    port = attr("@port", UINT, default=0)


class CcidAddress(Address, kind="ccid"):
    """A slot of a smartcard reader."""

    controller = attr("@controller", UINT, default=0)
    slot = attr("@slot", UINT, default=0)


class UsbAddress(Address, kind="usb"):
    """A USB bus (the controller's index) and a path of port numbers below it; no port: still to be found."""

    bus = attr("@bus", UINT, default=0)
    port = attr("@port")
    device = attr("@device", UINT)

    @classmethod
    def entered(cls, el: Element) -> None:
        """Check the path of port numbers."""
        port = el.get("port")
        parts = port.split(".") if port is not None else ["1"]
        if len(parts) > 4 or not all(p.isascii() and p.isdigit() and 0 < int(p) < 1 << 31 for p in parts):
            raise internal_error("Cannot parse <address> 'port' attribute", domain=c.VIR_FROM_DEVICE)

    @property
    def path(self) -> tuple[int, ...]:
        """The port numbers, outermost first; () if there are none yet."""
        return tuple(int(p) for p in self.port.split(".")) if self.port else ()


class SpaprVioAddress(Address, kind="spapr-vio"):
    """A register of a POWER machine's virtual I/O."""

    reg = attr("@reg", HEX32)


class CcwAddress(Address, kind="ccw"):
    """A channel device of an s390 machine."""

    cssid = attr("@cssid", HEX4)
    ssid = attr("@ssid", HEX4)
    devno = attr("@devno", HEX16)

    def loaded(self, el: Element, view: View) -> None:
        """It is given whole, or left to be found."""
        if len({name for name in ("cssid", "ssid", "devno") if getattr(self, name) is None}) in (1, 2):
            raise internal_error("Invalid partial specification for virtio ccw address", domain=c.VIR_FROM_DEVICE)


class VirtioMmioAddress(Address, kind="virtio-mmio"):
    """A memory mapped virtio device."""


class IsaAddress(Address, kind="isa"):
    """Where an ISA device listens."""

    iobase = attr("@iobase", HEX4)
    irq = attr("@irq", HEX4)


class DimmAddress(Address, kind="dimm"):
    """A memory slot, and where it appears in the guest."""

    slot = attr("@slot", UINT, default=0, required=True)
    base = attr("@base", HEX64)


class VirtioS390Address(Address, kind="virtio-s390"):
    """What early IBM machines had."""

    def loaded(self, el: Element, view: View) -> None:
        """It is refused."""
        raise VirtError(c.VIR_ERR_XML_ERROR, "virtio-s390 bus doesn't have an address", domain=c.VIR_FROM_DOMAIN)


class UnassignedAddress(Address, kind="unassigned"):
    """Says that the device is not plugged in (a host device that is only managed)."""


class Info(Model):
    """What every device may say of itself."""

    boot_order = attr(
        "boot/@order",
        POSITIVE,
    )
    loadparm = attr("boot/@loadparm")
    alias = attr("alias/@name", when=lambda info, view: view.live or _user_alias(info.alias))
    master_port = attr("master/@startport", UINT)
    rom_enabled = attr("rom/@enabled", YES_NO)
    rom_bar = attr("rom/@bar", ON_OFF)
    rom_file = attr("rom/@file")
    acpi_index = attr("acpi/@index", POSITIVE)
    address = sub("address", Address)

    def loaded(self, el: Element, view: View) -> None:
        """An alias that the user did not choose is a run-time value."""
        self.loadparm = self.loadparm.upper() if self.loadparm is not None else None
        if self.alias is not None and not view.live and not _user_alias(self.alias):
            self.alias = None
        if self.rom_enabled is False and (self.rom_bar is not None or self.rom_file is not None):
            text = "ROM tuning is not supported when ROM is disabled"
            raise VirtError(c.VIR_ERR_CONFIG_UNSUPPORTED, text, domain=c.VIR_FROM_DOMAIN)

    @property
    def shown_alias(self) -> str:
        """The alias in messages."""
        return self.alias or "<null>"


class Device(Model):
    """Any device. What it says of itself comes last, unless its class declares `info` elsewhere."""

    info = inline(Info)


def _user_alias(alias: str) -> bool:
    return alias.startswith("ua-") and all(ch.isascii() and (ch.isalnum() or ch in "_-") for ch in alias)


class DeviceSeclabel(Model):
    """A security label for one device's source. One that only says that labelling was skipped is not kept."""

    model = attr("@model")
    relabel = attr("@relabel", YES_NO)
    label_skip = attr("@labelskip", YES_NO)
    label = attr("label")

    def loaded(self, el: Element, view: View) -> None:
        """Who gives a label wants it to be set."""
        if self.label is not None and self.relabel is False:
            text = f"Cannot specify a label if relabelling is turned off. model={self.model or '<null>'}"
            raise VirtError(c.VIR_ERR_XML_ERROR, text, domain=c.VIR_FROM_DOMAIN)
        if self.label is not None and self.relabel is None:
            self.relabel = True


def real_labels(labels: list[DeviceSeclabel], view: View) -> list[DeviceSeclabel]:
    """Those labels that are part of a definition: not what only says that labelling was skipped, or nothing.

    Two of one security driver stay, so that they are refused in their turn.
    """
    if view.live or twice(labels):
        return labels
    for one in labels:
        if one.label is not None:
            one.label_skip = None
    return [one for one in labels if not one.label_skip and (one.label is not None or one.relabel is False)]


def twice(labels: Sequence[DeviceSeclabel]) -> str | None:
    """The security driver that is named twice, None if none is."""
    models = [one.model for one in labels]
    return next((model for model in models if model is not None and models.count(model) > 1), None)


class VirtioOptions(Model):
    """The options that every virtio device takes in its <driver> element; to be inlined there."""

    iommu = attr("@iommu", ON_OFF)
    ats = attr("@ats", ON_OFF)
    packed = attr("@packed", ON_OFF)
    page_per_vq = attr("@page_per_vq", ON_OFF)

    def given(self) -> str | None:
        """The name of the first option that is given, None if none is."""
        return next((name for name in VirtioOptions.fields if getattr(self, name) is not None), None)


class Driver(Model):
    """A <driver> element that has nothing but the virtio options."""

    virtio = inline(VirtioOptions)


class Reconnect(Model):
    """Whether and how soon a connection is made again."""

    enabled = attr("@enabled", YES_NO)
    timeout = attr("@timeout", UINT)

    @classmethod
    def read(cls, el: Element, view: View) -> "Reconnect":
        """Nobody looks at the time where no connection is made again."""
        if el.get("enabled") == "no":
            return cls(enabled=False)
        return cls() if el.get("enabled") is None else super().read(el, view)

    def loaded(self, el: Element, view: View) -> None:
        """The time is a must where it has a meaning."""
        if self.timeout is None:
            raise missing_attribute("timeout", el)
