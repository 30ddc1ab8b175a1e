"""What clients hand to the guest: <redirdev> and <redirfilter> (USB devices), <smartcard>."""

from virtd import constants as c
from virtd.conf.domain.base import Device
from virtd.conf.domain.chardev import CharSource, DbusSource
from virtd.conf.domain.errors import internal_error, xml_error
from virtd.conf.xml.model import Element, Model, View, attr, inline, subs, texts
from virtd.conf.xml.types import (
    TEXT,
    YES_NO,
    Choice,
    Integer,
    Type,
)
from virtd.errors import VirtError

INTERNAL = c.VIR_ERR_INTERNAL_ERROR
UNSUPPORTED = c.VIR_ERR_CONFIG_UNSUPPORTED


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
