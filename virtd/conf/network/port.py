"""<networkport>: a guest's place in a network, and what it is plugged into."""

from virtd import constants as c
from virtd.conf.netdev import Bandwidth, VirtualPort, Vlan
from virtd.conf.network.ip import refuse
from virtd.conf.xml.model import Element, Model, View, attr, sub
from virtd.conf.xml.types import MAC, UINT, UUID, YES_NO, Choice, Integer

_INTERNAL = c.VIR_ERR_INTERNAL_ERROR
_HEX4 = Integer(0, 0xFFFF, base=0, template="0x%04x")
_HEX2 = Integer(0, 0xFF, base=0, template="0x%02x")
_HEX = Integer(0, 7, base=0, template="0x%x")


class PlugAddress(Model):
    """The PCI address of a card that is handed to a guest."""

    domain = attr("@domain", _HEX4, default=0)
    bus = attr("@bus", _HEX2, default=0)
    slot = attr("@slot", _HEX2, default=0)
    function = attr("@function", _HEX, default=0)


class Plug(Model):
    """What the port is plugged into."""

    type = attr("@type", Choice("none network bridge direct hostdev-pci"), default="none")
    bridge = attr("@bridge")
    mac_table_manager = attr("@macTableManager", Choice("kernel libvirt"))
    dev = attr("@dev")
    mode = attr("@mode", Choice("vepa private bridge passthrough"))
    managed = attr("@managed", YES_NO)
    driver = attr("driver/@name", Choice("kvm vfio xen"))
    address = sub("address", PlugAddress)

    def loaded(self, el: Element, view: View) -> None:
        """Each kind names what it is plugged into."""
        if self.type in ("network", "bridge") and self.bridge is None:
            raise refuse("Missing network port bridge name")
        if self.type == "direct" and self.dev is None:
            raise refuse("Missing network port link device name")


class PortBandwidth(Bandwidth):
    """Limits of traffic, and the class of traffic that the network has made for what is guaranteed of them."""

    class_id = attr("@classID", UINT)

    @classmethod
    def of(cls, limits: Bandwidth | None) -> "PortBandwidth | None":
        """The limits of a guest, or of a group of ports, as those of a port."""
        if limits is None:
            return None
        return cls(
            inbound=limits.inbound and limits.inbound.copy(), outbound=limits.outbound and limits.outbound.copy()
        )

    @property
    def limits(self) -> Bandwidth:
        """The limits as a guest has them."""
        return Bandwidth(inbound=self.inbound, outbound=self.outbound)


class NetworkPort(Model):
    """A guest's place in a network."""

    uuid = attr("uuid", UUID, bad=(_INTERNAL, "Unable to parse UUID '%s'"))
    owner_name = attr("owner/name")
    owner_uuid = attr("owner/uuid", UUID, bad=(_INTERNAL, "Unable to parse UUID '%s'"))
    group = attr("group")
    mac = attr("mac/@address", MAC, bad=(_INTERNAL, "Unable to parse MAC '%s'"))
    virtualport = sub("virtualport", VirtualPort)
    bandwidth = sub("bandwidth", PortBandwidth, keep=True)
    vlan = sub("vlan", Vlan)
    isolated = attr("port/@isolated", YES_NO)
    trust_guest_rx_filters = attr("rxfilters/@trustGuest", YES_NO)
    plug = sub("plug", Plug, when=lambda port, view: port.plug.type != "none")

    @property
    def plug_type(self) -> str:
        """What kind of thing it is plugged into; "none" before the network has chosen."""
        return "none" if self.plug is None else self.plug.type

    @property
    def class_id(self) -> int | None:
        """The class of traffic of what it is guaranteed; None for nothing."""
        return None if self.bandwidth is None else self.bandwidth.class_id


def check_port(port: NetworkPort) -> None:
    """A port has a uuid, an owner and a MAC address.

    Raises:
        VirtError: VIR_ERR_INTERNAL_ERROR naming what is missing.
    """
    for value, what in (
        (port.uuid, "uuid"),
        (port.owner_name, "owner name"),
        (port.owner_uuid, "owner UUID"),
        (port.mac, "mac"),
    ):
        if value is None:
            raise refuse(f"network port has no {what}", _INTERNAL)
