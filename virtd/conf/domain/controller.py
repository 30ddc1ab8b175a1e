"""<controller>: what devices are plugged into, by type (PCI, USB, IDE, SCSI, …) and index."""

from virtd.conf.domain.base import Device, VirtioOptions
from virtd.conf.domain.errors import conf_error, xml_error
from virtd.conf.xml.model import Element, Model, View, attr, inline, part
from virtd.conf.xml.types import INT, KIB, NATURAL, ON_OFF, UINT, Choice, Integer

TYPES = Choice("ide fdc scsi sata virtio-serial ccid usb pci xenbus isa")

PORT = Integer(-(1 << 31), (1 << 31) - 1, base=0, template="0x%x")

_PCI = "pci-root pcie-root pci-bridge dmi-to-pci-bridge pcie-to-pci-bridge pcie-root-port pcie-switch-upstream-port pcie-switch-downstream-port pci-expander-bus pcie-expander-bus".split()  # noqa: SIM905, E501
_SCSI = "auto buslogic lsilogic lsisas1068 vmpvscsi ibmvscsi virtio-scsi lsisas1078 virtio-transitional virtio-non-transitional ncr53c90 dc390 am53c974".split()  # noqa: SIM905, E501
_USB = "piix3-uhci piix4-uhci ehci ich9-ehci1 ich9-uhci1 ich9-uhci2 ich9-uhci3 vt82c686b-uhci pci-ohci nec-xhci qusb1 qusb2 qemu-xhci none".split()  # noqa: SIM905, E501
_VIRTIO = ("virtio", "virtio-transitional", "virtio-non-transitional")

MODELS: dict[str, frozenset[str]] = {
    "pci": frozenset(_PCI),
    "scsi": frozenset(_SCSI),
    "usb": frozenset(_USB),
    "ide": frozenset(("piix3", "piix4", "ich6")),
    "virtio-serial": frozenset(_VIRTIO),
    "isa": frozenset(),
    "fdc": frozenset(),
    "sata": frozenset(),
    "ccid": frozenset(),
}
MODEL_NAMES = Choice(
    "none pci-bridge i82801b11-bridge ioh3420 x3130-upstream xio3130-downstream pxb pxb-pcie pcie-root-port "
    "spapr-pci-host-bridge pcie-pci-bridge"
)


COMPANION_PORTS = {"ich9-uhci1": 0, "ich9-uhci2": 2, "ich9-uhci3": 4}
"""The first of the ports that the parts of a USB 2 controller share."""
PCI_FIELDS = (
    *("model_name", "chassis_nr", "chassis", "port", "bus_nr", "target_index", "hotplug", "node", "pcihole64"),
)
"""What only PCI bridges and ports have."""


class ControllerDriver(Model):
    """How the controller works inside."""

    queues = attr("@queues", UINT, omit=0)
    cmd_per_lun = attr("@cmd_per_lun", UINT, omit=0)
    max_sectors = attr("@max_sectors", UINT, omit=0)
    ioeventfd = attr("@ioeventfd", ON_OFF)
    iothread = attr("@iothread", UINT, omit=0)
    virtio = inline(VirtioOptions)


class Controller(Device):
    """A controller, or a PCI bridge."""

    type = attr("@type", TYPES, default="ide")
    index = attr("@index", NATURAL)
    model = attr("@model")
    ports = attr("@ports", NATURAL)
    vectors = attr("@vectors", NATURAL)
    max_grant_frames = attr("@maxGrantFrames", INT)
    max_event_channels = attr("@maxEventChannels", INT)
    driver = part("driver", ControllerDriver)
    model_name = attr("model/@name", MODEL_NAMES)
    chassis_nr = attr("target/@chassisNr", INT)
    chassis = attr("target/@chassis", INT)
    port = attr("target/@port", PORT)
    bus_nr = attr("target/@busNr", INT)
    target_index = attr("target/@index", INT)
    hotplug = attr("target/@hotplug", ON_OFF)
    node = attr("target/node", INT)
    pcihole64 = attr("pcihole64", KIB)

    def loaded(self, el: Element, view: View) -> None:
        """The models depend on the type."""
        if self.type == "usb" and self.model in COMPANION_PORTS and self.info.master_port is None:
            self.info.master_port = 0 if el.find("master") is not None else COMPANION_PORTS[self.model]
        if self.type != "virtio-serial":
            self.vectors = None
        if self.type not in ("virtio-serial", "usb"):
            self.ports = None
        if self.type != "xenbus":
            self.max_grant_frames = self.max_event_channels = None
        if self.model_name == "none":
            self.model_name = None
        if self.type != "pci":
            for name in PCI_FIELDS:
                self.__dict__.pop(name, None)
        for name in ("target", "model"):
            if len(el.findall(name)) > 1:
                raise xml_error(f"Multiple <{name}> elements in controller definition not allowed")
        known = MODELS.get(self.type)
        if self.model is not None and known is not None and self.model not in known:
            raise conf_error(f"Unknown model type '{self.model}'")
