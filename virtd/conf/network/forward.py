"""<forward>: how a network reaches what lies outside of it, and the host's devices which it uses for that."""

from virtd import constants as c
from virtd.conf.network import sockaddr
from virtd.conf.network.ip import UNSUPPORTED, refuse
from virtd.conf.xml.model import Element, Model, View, attr, sub, subs
from virtd.conf.xml.types import TEXT, UINT, YES_NO, Integer

MODES = ("none", "nat", "route", "open", "bridge", "private", "vepa", "passthrough", "hostdev")
OWN_BRIDGE = ("none", "nat", "route", "open")
"""The modes in which a network has a bridge of its own."""
_LARGEST_PORT = 65535
_HEX4 = Integer(0, 0xFFFFFFFF, base=0, template="0x%04x")
_HEX2 = Integer(0, 0xFFFFFFFF, base=0, template="0x%02x")
_HEX = Integer(0, 0xFFFFFFFF, base=0, template="0x%x")


class NatAddress(Model):
    """The addresses that guests appear with outside."""

    start = attr("@start")
    end = attr("@end")

    def loaded(self, el: Element, view: View) -> None:
        """Both ends are IPv4 addresses."""
        for name in ("start", "end"):
            if getattr(self, name) is None:
                where = "attribute in <address> element in <nat> in <forward> in network {network}"
                raise refuse(f"missing '{name}' {where}")
        ends: list[sockaddr.Address] = []
        for name in ("start", "end"):
            address = sockaddr.parse(getattr(self, name))
            if address is None or address.version != 4:
                text = f"Bad ipv4 {name} address '{getattr(self, name)}' in <nat> in <forward> in network '{{network}}'"
                raise refuse(text)
            ends.append(address)
            setattr(self, name, str(address))
        sockaddr.check_range(ends[0], ends[1])


class NatPort(Model):
    """The ports that guests' connections appear with outside."""

    start = attr("@start")
    end = attr("@end")

    def loaded(self, el: Element, view: View) -> None:
        """They are numbers, in order."""
        lowest = 0
        for name in ("start", "end"):
            text = getattr(self, name) or ""
            if not (text.isascii() and text.isdigit() and lowest <= int(text) <= _LARGEST_PORT):
                where = "attribute in <port> in <nat> in <forward> in network {network}"
                raise refuse(f"Missing or invalid '{name}' {where}", c.VIR_ERR_XML_DETAIL)
            lowest = int(text)
            setattr(self, name, str(lowest))


class Nat(Model):
    """How addresses are translated."""

    ipv6 = attr("@ipv6", YES_NO)
    addresses = subs("address", NatAddress)
    ports = subs("port", NatPort)

    def loaded(self, el: Element, view: View) -> None:
        """There is one range of each at most."""
        for name, found in (("address", self.addresses), ("port", self.ports)):
            if len(found) > 1:
                raise refuse(f"Only one <{name}> element is allowed in <nat> in <forward> in network {{network}}")


class ForwardInterface(Model):
    """A device of the host by its name."""

    dev = attr("@dev")
    connections = attr("@connections", UINT, live=True, omit=0)

    def loaded(self, el: Element, view: View) -> None:
        """It has a name."""
        if self.dev is None:
            raise refuse("Missing required dev attribute in <forward> <interface> element of network {network}")


class PhysicalFunction(Model):
    """A device whose virtual functions the guests get."""

    dev = attr("@dev")
    connections = attr("@connections", UINT, live=True, omit=0)

    def loaded(self, el: Element, view: View) -> None:
        """It has a name."""
        if self.dev is None:
            raise refuse("Missing required dev attribute in <pf> element of network '{network}'")


class ForwardAddress(Model):
    """A device of the host by its PCI address."""

    type = attr("@type")
    domain = attr("@domain", _HEX4, default=0)
    bus = attr("@bus", _HEX2, default=0)
    slot = attr("@slot", _HEX2, default=0)
    function = attr("@function", _HEX, default=0)
    connections = attr("@connections", UINT, live=True, omit=0)

    def loaded(self, el: Element, view: View) -> None:
        """It is a PCI address within PCI's bounds."""
        if self.type is None:
            raise refuse("missing address type in network {network}")
        if self.type != "pci":
            raise refuse(f"unknown address type '{self.type}' in network {{network}}", UNSUPPORTED)
        for name, limit in (("domain", 0xFFFF), ("bus", 0xFF), ("slot", 0x1F), ("function", 7)):
            if getattr(self, name) > limit:
                shown = f"0x{limit:X}" if limit > 7 else str(limit)
                raise refuse(f"Invalid PCI address {name}='0x{getattr(self, name):x}', must be <= {shown}")

    @property
    def text(self) -> str:
        """The address as sysfs names it."""
        return f"{self.domain:04x}:{self.bus:02x}:{self.slot:02x}.{self.function:x}"


class Forward(Model):
    """How the network reaches what lies outside."""

    dev = attr("@dev")
    mode = attr("@mode", TEXT, default="nat")
    managed = attr("@managed")
    driver = attr("driver/@name")
    nats = subs("nat", Nat)
    pfs = subs("pf", PhysicalFunction)
    interfaces = subs("interface", ForwardInterface)
    addresses = subs("address", ForwardAddress)

    @property
    def nat(self) -> Nat | None:
        """The translation of addresses that is asked for."""
        return self.nats[0] if self.nats else None

    def loaded(self, el: Element, view: View) -> None:
        """Sort out which devices count, and check them."""
        self.mode = self.mode or "nat"
        if self.mode not in MODES:
            raise refuse(f"unknown forwarding type '{self.mode}'", UNSUPPORTED)
        self.managed = ("yes" if self.managed == "yes" else "no") if self.mode == "hostdev" else None
        self.driver = self.driver or None
        if self.driver not in (None, "vfio", "kvm"):
            raise refuse(f"Unknown forward <driver name='{self.driver}'/> in network {{network}}", UNSUPPORTED)
        self._check_counts()
        self.nats = [nat for nat in self.nats if nat.ipv6 is not None or nat.addresses or nat.ports]
        dev = self.dev or None
        if dev is not None and (self.addresses or self.pfs):
            # libvirt's own words have no name in them.
            raise refuse(
                "the <forward> 'dev' attribute cannot be used when <address> or <pf> sub-elements are present in "
                "network %s"
            )
        if len(self.pfs) > 1:
            raise refuse("Only one <pf> element is allowed in <forward> of network {network}")
        if dev is not None and self.interfaces and self.interfaces[0].dev != dev:
            first = self.interfaces[0].dev
            text = f"<forward dev='{dev}'> must match first <interface dev='{first}'/> in network {{network}}"
            raise refuse(text)
        if dev is not None and not self.interfaces:
            self.interfaces = [ForwardInterface(dev=dev)]
        self._check_devices()
        self.dev = self.interfaces[0].dev if self.interfaces else None

    def _check_counts(self) -> None:
        if len(self.nats) > 1:
            raise refuse("Only one <nat> element is allowed in <forward> of network {network}")
        if self.nats and self.mode != "nat":
            raise refuse("The <nat> element can only be used when <forward> 'mode' is 'nat' in network {network}")

    def _check_devices(self) -> None:
        """Names count before addresses, and both before a physical function."""
        if self.interfaces:
            self.addresses, self.pfs = [], []
        elif self.addresses:
            self.pfs = []
        names = [one.dev for one in self.interfaces]
        for number, name in enumerate(names):
            if name in names[:number]:
                raise refuse(f"interface '{name}' can only be listed once in network {{network}}")
        places = [one.text for one in self.addresses]
        for number, place in enumerate(places):
            if place in places[:number]:
                raise refuse(f"PCI device '{place}' can only be listed once in network {{network}}")


def sub_forward() -> Forward | None:
    """The declaration of the element in a network."""
    return sub("forward", Forward, keep=True, when=lambda network, view: network.mode != "none")
