"""Controllers, and USB hubs: what the other devices are plugged into."""

from collections.abc import Callable

from virtd.conf.domain.basics import is_i440fx, is_q35
from virtd.conf.domain.controller import Controller
from virtd.drivers.qemu.command import virtio
from virtd.drivers.qemu.command.address import place
from virtd.drivers.qemu.command.line import Line, Properties, alias, unsupported

# The order in which they are made: what is plugged into something comes after it.
_ORDER = ("pci", "usb", "scsi", "ide", "sata", "fdc", "virtio-serial", "ccid")
_USB = {
    "piix3-uhci": "piix3-usb-uhci",
    "piix4-uhci": "piix4-usb-uhci",
    "ehci": "usb-ehci",
    "ich9-ehci1": "ich9-usb-ehci1",
    "ich9-uhci1": "ich9-usb-uhci1",
    "ich9-uhci2": "ich9-usb-uhci2",
    "ich9-uhci3": "ich9-usb-uhci3",
    "vt82c686b-uhci": "vt82c686b-usb-uhci",
    "pci-ohci": "pci-ohci",
    "nec-xhci": "nec-usb-xhci",
    "qemu-xhci": "qemu-xhci",
}
_SCSI = {
    "lsilogic": ("lsi", "lsi53c895a"),
    "lsisas1068": ("mptsas1068", "mptsas1068"),
    "vmpvscsi": ("pvscsi", "pvscsi"),
    "lsisas1078": ("megasas", "megasas"),
    "dc390": ("dc-390", "dc390"),
    "am53c974": ("am53c974", "am53c974"),
}
# PCI bridges: model → (device, if it says no more of itself by model name).
_BRIDGES = {
    "pci-bridge": "pci-bridge",
    "dmi-to-pci-bridge": "i82801b11-bridge",
    "pcie-to-pci-bridge": "pcie-pci-bridge",
    "pcie-root-port": "pcie-root-port",
    "pcie-switch-upstream-port": "x3130-upstream",
    "pcie-switch-downstream-port": "xio3130-downstream",
    "pci-expander-bus": "pxb",
    "pcie-expander-bus": "pxb-pcie",
}


def add_controllers(line: Line) -> None:
    """Add all controllers, and the hubs.

    Raises:
        VirtError: VIR_ERR_CONFIG_UNSUPPORTED, one cannot be had on this machine.
    """
    for kind in _ORDER:
        for controller in line.config.controllers:
            if controller.type == kind:
                add_controller(line, controller)
    for controller in line.config.controllers:
        if controller.type not in _MAKERS:
            raise unsupported(f"controller type '{controller.type}' is not supported with this QEMU binary")
    for hub in line.config.hubs:
        line.device("usb-hub", id=alias(hub.info), **place(line, hub.info))


def add_controller(line: Line, controller: Controller) -> None:
    """Add one controller, of a type that there is a device for."""
    _MAKERS[controller.type or ""](line, controller)


def _pci(line: Line, controller: Controller) -> None:
    model = controller.model or ""
    if model in ("pci-root", "pcie-root"):
        if controller.hotplug is not None:
            if model != "pci-root" or not is_i440fx(line.config.os.machine or ""):
                raise unsupported(f"Option 'hotplug' is not valid for PCI controller with model '{model}'")
            line.add("global", f"PIIX4_PM.acpi-root-pci-hotplug={'on' if controller.hotplug else 'off'}")
        return
    driver = controller.model_name or _BRIDGES.get(model)
    if driver is None:
        raise unsupported(f"PCI controller model '{model}' is not supported with this QEMU binary")
    line.need(driver, f"PCI controller model '{model}'")
    port = model in ("pcie-root-port", "pcie-switch-downstream-port")
    expander = model in ("pci-expander-bus", "pcie-expander-bus")
    line.device(
        driver,
        chassis_nr=controller.chassis_nr if model == "pci-bridge" else None,
        port=controller.port if port else None,
        chassis=controller.chassis if port else None,
        bus_nr=controller.bus_nr if expander else None,
        id=alias(controller.info),
        numa_node=controller.node if expander else None,
        hotplug=controller.hotplug if port else None,
        **place(line, controller.info),
    )


def _usb(line: Line, controller: Controller) -> None:
    model = controller.model or ""
    if model == "none":
        return
    driver = _USB.get(model)
    if driver is None or not line.binary.has(driver):
        raise unsupported(f"USB controller model '{model}' not supported in this QEMU binary")
    ports = controller.ports
    if ports is not None and driver not in ("nec-usb-xhci", "qemu-xhci"):
        raise unsupported(f"usb controller type '{model}' doesn't support 'ports' with this QEMU binary")
    if controller.info.master_port is not None:
        # A companion has no name of its own; it is found by its master.
        master = line.controller("usb", controller.index or 0)
        name: Properties = {"masterbus": f"{alias(master.info)}.0", "firstport": controller.info.master_port}
    else:
        name = {"p2": ports, "p3": ports, "id": alias(controller.info)}
    line.device(driver, **name, **place(line, controller.info))


def _scsi(line: Line, controller: Controller) -> None:
    model = controller.model or ""
    options = controller.driver
    if model.startswith("virtio"):
        iothread = f"iothread{options.iothread}" if options.iothread is not None else None
        line.device(
            virtio.driver(line, "virtio-scsi", None if model == "virtio-scsi" else model),
            **virtio.options(options.virtio),
            iothread=iothread,
            id=alias(controller.info),
            num_queues=options.queues,
            cmd_per_lun=options.cmd_per_lun,
            max_sectors=options.max_sectors,
            ioeventfd=options.ioeventfd,
            **place(line, controller.info),
        )
        return
    if model not in _SCSI:
        raise unsupported(f"Unsupported controller model: {model}")
    driver, kind = _SCSI[model]
    if not (line.binary.has(driver) or line.binary.has(kind)):
        raise unsupported(f"The QEMU executable does not support {model} SCSI controller")
    line.device(driver, id=alias(controller.info), **place(line, controller.info))


def _sata(line: Line, controller: Controller) -> None:
    if controller.index == 0 and is_q35(line.config.os.machine or ""):
        return  # the chip set's own
    line.device("ahci", id=alias(controller.info), **place(line, controller.info))


def _ide(line: Line, controller: Controller) -> None:
    """The machine's own, or none: there is no device for another."""
    if not (is_i440fx(line.config.os.machine or "") or line.config.os.machine == "isapc"):
        raise unsupported("IDE controllers are unsupported for this QEMU binary or machine type")
    if controller.index:
        raise unsupported("Only a single IDE controller is supported for this machine type")


def _fdc(line: Line, controller: Controller) -> None:
    """The machine's own on the older ones; a q35 gets one if there is a drive, with the first drive (disks.py)."""


def _virtio_serial(line: Line, controller: Controller) -> None:
    line.device(
        virtio.driver(line, "virtio-serial", controller.model),
        **virtio.options(controller.driver.virtio),
        id=alias(controller.info),
        max_ports=controller.ports,
        vectors=controller.vectors,
        ioeventfd=controller.driver.ioeventfd,
        **place(line, controller.info),
    )


def _ccid(line: Line, controller: Controller) -> None:
    line.device("usb-ccid", id=alias(controller.info), **place(line, controller.info))


_MAKERS: dict[str, Callable[[Line, Controller], None]] = {
    "pci": _pci,
    "usb": _usb,
    "scsi": _scsi,
    "ide": _ide,
    "sata": _sata,
    "fdc": _fdc,
    "virtio-serial": _virtio_serial,
    "ccid": _ccid,
}
