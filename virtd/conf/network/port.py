"""<networkport>: a guest's place in a network, and what it is plugged into."""

from virtd import constants as c
from virtd.conf.netdev import Bandwidth, VirtualPort, Vlan
from virtd.conf.network.ip import refuse
from virtd.conf.xml.model import Element, Model, View, attr, sub
from virtd.conf.xml.types import MAC, UUID, YES_NO, Choice, Integer

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


class NetworkPort(Model):
    """A guest's place in a network."""

    uuid = attr("uuid", UUID, bad=(_INTERNAL, "Unable to parse UUID '%s'"))
    owner_name = attr("owner/name")
    owner_uuid = attr("owner/uuid", UUID, bad=(_INTERNAL, "Unable to parse UUID '%s'"))
    group = attr("group")
    mac = attr("mac/@address", MAC, bad=(_INTERNAL, "Unable to parse MAC '%s'"))
    virtualport = sub("virtualport", VirtualPort)
    bandwidth = sub("bandwidth", Bandwidth, keep=True)
    vlan = sub("vlan", Vlan)
    isolated = attr("port/@isolated", YES_NO)
    trust_guest_rx_filters = attr("rxfilters/@trustGuest", YES_NO)
    plug = sub("plug", Plug, when=lambda port, view: port.plug.type != "none")

    @property
    def plug_type(self) -> str:
        """What kind of thing it is plugged into; "none" before the network has chosen."""
        return "none" if self.plug is None else self.plug.type


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
