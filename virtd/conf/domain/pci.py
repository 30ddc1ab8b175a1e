"""PCI addresses: which slot of which bus a device gets, and which bridges and ports must be added for it.

The rules are libvirt's, so that a definition keeps its guest's hardware where it was:
- A device goes to the first whole free slot of the first bus that takes its kind.
- If there is none, a bridge or port is added. On PCIe machines root ports share slots, one function each, and the
  first device that has its address found by us makes one port more, for hotplug.
- The allocation is made twice: the first run only finds out which controllers are needed; in the second they come
  first.
"""

from virtd.conf.domain.base import Info, PciAddress
from virtd.conf.domain.errors import internal_error, xml_error
from virtd.errors import VirtError

# What a bus takes and a device needs.
PCI, PCIE, BRIDGE, ROOT_PORT, DMI, TO_PCI, UPSTREAM, DOWNSTREAM, EXPANDER, PCIE_EXPANDER, HOTPLUG = (
    1 << n for n in range(11)
)
KINDS = HOTPLUG - 1
ENDPOINT = PCI | PCIE | BRIDGE

# model: (what the bus takes, first slot, last slot, what the controller itself needs, its QEMU device)
BUSES: dict[str, tuple[int, int, int, int, str]] = {
    "pci-root": (PCI | BRIDGE | EXPANDER | HOTPLUG, 1, 31, 0, ""),
    "pci-bridge": (PCI | BRIDGE | HOTPLUG, 1, 31, BRIDGE, "pci-bridge"),
    "pci-expander-bus": (PCI | BRIDGE | HOTPLUG, 0, 31, EXPANDER, "pxb"),
    "pcie-root": (PCIE | ROOT_PORT | DMI | PCIE_EXPANDER, 1, 31, 0, ""),
    "dmi-to-pci-bridge": (PCI | BRIDGE, 0, 31, DMI, "i82801b11-bridge"),
    "pcie-to-pci-bridge": (PCI | BRIDGE | HOTPLUG, 1, 31, TO_PCI, "pcie-pci-bridge"),
    "pcie-root-port": (PCIE | UPSTREAM | TO_PCI | HOTPLUG, 0, 0, ROOT_PORT, "pcie-root-port"),
    "pcie-switch-upstream-port": (DOWNSTREAM, 0, 31, UPSTREAM, "x3130-upstream"),
    "pcie-switch-downstream-port": (PCIE | UPSTREAM | TO_PCI | HOTPLUG, 0, 0, DOWNSTREAM, "xio3130-downstream"),
    "pcie-expander-bus": (ROOT_PORT | DMI, 0, 31, PCIE_EXPANDER, "pxb-pcie"),
}


class Bus:
    """One bus: which functions of which slots are taken (a bit for each), and which slots root ports share."""

    __slots__ = ("model", "shared", "slots")

    def __init__(self, model: str) -> None:
        self.model = model
        self.slots: dict[int, int] = {}
        self.shared: set[int] = set()

    @property
    def takes(self) -> int:
        """The kinds of devices that fit."""
        return BUSES[self.model][0]

    def find(self, *, shared: bool = False) -> tuple[int, int] | None:
        """The first slot in which nothing is, or (`shared`) that root ports share, and its first free function."""
        _, first, last, _, _ = BUSES[self.model]
        for slot in range(first, last + 1):
            taken = self.slots.get(slot, 0)
            if not taken:
                return slot, 0
            if shared and slot in self.shared and taken != 0xFF:
                return slot, next(f for f in range(8) if not taken >> f & 1)
        return None

    @property
    def full(self) -> bool:
        """Whether no slot is left."""
        return self.find() is None


class PciBuses:
    """All buses of a machine.

    Args:
        models: the model of each bus by index; None where no controller has the index.
        grow: whether bridges and ports may be added.
    """

    def __init__(self, models: list[str | None], *, grow: bool) -> None:
        self.buses = [Bus(model) if model is not None else None for model in models]
        self.grow = grow

    @property
    def pcie(self) -> bool:
        """Whether bus 0 is PCI Express."""
        return bool(self.buses) and self.buses[0] is not None and self.buses[0].model == "pcie-root"

    def reserve(self, address: PciAddress, needs: int, *, given: bool = False) -> None:
        """Take an address.

        Args:
            address: it; where a bridge had to be put before the bus it names, it moves by one.
            needs: what the device needs.
            given: whether the definition says it; a user may plug PCI devices into PCIe slots and the reverse.

        Raises:
            VirtError: if it does not exist or is in use.
        """
        where = describe(address)
        if address.domain:
            raise xml_error(f"Invalid PCI address {where}. Only PCI domain 0 is available")
        if self.grow and address.bus >= len(self.buses):
            self.grow_to(address, needs)
        bus = self.buses[address.bus] if address.bus < len(self.buses) else None
        if bus is None:
            raise xml_error(
                f"Invalid PCI address {where}. Only PCI buses up to {len(self.buses) - 1} are available",
            )
        if given:
            check_fit(bus, address, needs)
        _, first, last, _, _ = BUSES[bus.model]
        if address.slot < first:
            raise xml_error(f"Invalid PCI address {where}. slot must be >= {first}")
        if address.slot > last:
            raise xml_error(f"Invalid PCI address {where}. slot must be <= {last}")
        bit = 1 << address.function
        taken = bus.slots.get(address.slot, 0)
        if taken & bit:
            raise xml_error(f"Attempted double use of PCI Address {where}")
        if not taken and needs & ROOT_PORT:
            bus.shared.add(address.slot)
        elif not needs & ROOT_PORT:
            bus.shared.discard(address.slot)
        bus.slots[address.slot] = taken | bit

    def grow_to(self, address: PciAddress, needs: int) -> None:
        """Add buses until there is the one that an address names.

        On PCIe, the first bus for PCI devices comes with a port before it; if there is only room for one of them, the
        device moves to the next bus.
        """
        if needs & PCI and self.pcie and not any(bus is not None and bus.takes & BRIDGE for bus in self.buses):
            if address.bus == len(self.buses):
                address.bus += 1
            self.add(PCI)
        while address.bus >= len(self.buses):
            if needs & PCI and self.pcie:
                self.buses.append(Bus("pci-bridge"))
            else:
                self.add(needs)

    def in_use(self, bus: int, slot: int, function: int | None = None) -> bool:
        """Whether an address is taken; without a function, whether any of the slot is."""
        here = self.buses[bus]
        assert here is not None
        taken = here.slots.get(slot, 0)
        return bool(taken if function is None else taken >> function & 1)

    def find(self, needs: int, *, function: int = 0) -> PciAddress:
        """The first free address for a device; with buses added if that is allowed.

        Raises:
            VirtError: VIR_ERR_INTERNAL_ERROR if there is none.
        """
        start = 0
        while True:
            for index in range(start, len(self.buses)):
                bus = self.buses[index]
                if bus is None or not bus.takes & needs & KINDS or (needs & HOTPLUG and not bus.takes & HOTPLUG):
                    continue
                found = bus.find(shared=bool(needs & ROOT_PORT))
                if found is not None:
                    return PciAddress(bus=index, slot=found[0], function=found[1] or function)
            if not self.grow and needs & KINDS:
                raise internal_error("No more available PCI slots")
            start = len(self.buses)
            self.add(needs)

    def allocate(self, info: Info, needs: int, *, function: int = 0) -> PciAddress:
        """Give a device the first free address."""
        found = self.find(needs, function=function)
        self.reserve(found, needs)
        info.address = found
        return found

    def add(self, needs: int) -> None:
        """Add the bus (and what it is plugged into) that a device of this kind needs.

        Raises:
            VirtError: VIR_ERR_INTERNAL_ERROR if no bridge or port could take it.
        """
        if needs & PCI:
            if self.pcie:
                self.buses.append(Bus("pcie-root-port"))
                self.reserve(PciAddress(bus=len(self.buses) - 1), TO_PCI)
                self.buses.append(Bus("pcie-to-pci-bridge"))
            else:
                self.buses.append(Bus("pci-bridge"))
        elif needs & (PCIE | UPSTREAM | TO_PCI) and self.pcie:
            self.buses.append(Bus("pcie-root-port"))
        elif needs & BRIDGE and not self.pcie:
            raise _no_slot("pci-bridge")
        elif needs & BRIDGE:
            self.add(PCI)
        elif not needs & KINDS:
            raise internal_error(f"Cannot automatically add a new PCI bus for a device with connect flags {needs:02x}")
        else:
            raise _no_slot(next((m for m, row in BUSES.items() if row[3] & needs), "device"))


PLUGS = (
    (PCI, "standard PCI device"),
    (PCIE, "PCI Express device"),
    (ROOT_PORT, "pcie-root-port"),
    (UPSTREAM, "pcie-switch-upstream-port"),
    (DOWNSTREAM, "pcie-switch-downstream-port"),
    (DMI, "dmi-to-pci-bridge"),
    (TO_PCI, "pcie-to-pci-bridge"),
    (EXPANDER, "pci-expander-bus"),
    (PCIE_EXPANDER, "pcie-expander-bus"),
    (BRIDGE, "pci-bridge"),
)


def check_fit(bus: Bus, address: PciAddress, needs: int) -> None:
    """Whether a device fits into a slot that the definition names.

    Raises:
        VirtError: VIR_ERR_XML_ERROR.
    """
    takes = bus.takes | (ENDPOINT if bus.takes & ENDPOINT else 0)
    if needs & KINDS and not takes & needs & KINDS:
        what = next(name for flag, name in PLUGS if needs & flag)
        raise xml_error(
            f"The device at PCI address {describe(address)} cannot be plugged into the PCI controller with "
            f"index='{address.bus}'. It requires a controller that accepts a {what}."
        )


def _no_slot(model: str) -> VirtError:
    return internal_error(
        f"a PCI slot is needed to connect a PCI controller model='{model}', but none is available, and it cannot be "
        "automatically added"
    )


def describe(address: PciAddress) -> str:
    """An address as libvirt writes it in messages."""
    return f"{address.domain:04x}:{address.bus:02x}:{address.slot:02x}.{address.function:x}"
