"""From XML to a finished Domain, and back: the two functions everybody uses, and the order of the steps between."""

from virtd import constants as c
from virtd.conf.domain import basics, devicedefaults, early, implicit, pciassign, ports, spapr, tuning
from virtd.conf.domain.check import Context, check, machine, memory
from virtd.conf.domain.display import ServerGraphics
from virtd.conf.domain.domain import Domain
from virtd.conf.domain.migratable import trimmed
from virtd.conf.host import Host
from virtd.conf.xml.document import parse_document
from virtd.conf.xml.model import View, local_name, write_document
from virtd.errors import VirtError


def parse_domain(xml: str, host: Host, *, inactive: bool = True) -> Domain:
    """A domain from its XML, with all defaults and addresses filled in.

    Args:
        xml: the document.
        host: what can be run here.
        inactive: whether run-time values (id, aliases, …) are ignored, as in a definition.

    Raises:
        VirtError: with libvirt's code for what is wrong.
    """
    domain = read_domain(xml, inactive=inactive)
    finish(domain, host, inactive=inactive)
    return domain


def read_domain(xml: str, *, inactive: bool = True) -> Domain:
    """A domain as it stands in its XML, nothing added.

    Raises:
        VirtError: for what is wrong by itself.
    """
    root = parse_document(xml, "domain_definition", domain=c.VIR_FROM_DOMAIN)
    if local_name(root) != "domain":
        raise VirtError(
            c.VIR_ERR_XML_ERROR,
            f"expecting root element of 'domain', not '{local_name(root)}'",
            domain=c.VIR_FROM_XML,
        )
    return Domain.read(root, View(live=not inactive))


def finish(domain: Domain, host: Host, *, inactive: bool = True) -> None:
    """Fill in what libvirt fills in, and check what it checks.

    Args:
        domain: what was read; it is changed.
        host: what can be run here.
        inactive: whether it is a definition; a running guest's chosen values are kept.

    Raises:
        VirtError: with libvirt's code for what is wrong.
    """
    basics.check_name(domain)
    basics.fill_top(domain)
    basics.default_boot(domain)
    implicit.sort_devices(domain)
    for disk in domain.disks:
        devicedefaults.early_disk(disk)
    for disk in domain.disks:
        devicedefaults.place_disk(disk, domain)
    implicit.add_hostdev_controllers(domain)
    implicit.place_hostdevs(domain)
    implicit.assign_indexes(domain)
    early.check_early(domain)
    emulator, kind = basics.choose_emulator(domain, host)
    basics.check_bootloader(domain)
    basics.check_tseg(domain)
    basics.fill_nvram(domain, host)
    implicit.add_machine_devices(domain, emulator)
    basics.fill_cpu(domain, emulator, kind)
    tuning.finish(domain)
    context = Context(domain, host, emulator, kind)
    machine.check_vcpus(context)
    for disk in domain.disks:
        devicedefaults.finish_disk(disk)
    for controller in domain.controllers:
        devicedefaults.finish_controller(domain, controller, emulator)
    for interface in domain.interfaces:
        devicedefaults.finish_interface(domain, interface, emulator)
    for graphics in domain.graphics:
        if isinstance(graphics, ServerGraphics):
            devicedefaults.finish_graphics(graphics, keep=not inactive)
    implicit.add_inputs(domain)
    implicit.add_audio(domain)
    implicit.add_video(domain)
    for video in domain.videos:
        devicedefaults.finish_video(video, emulator)
    implicit.add_consoles(domain)
    devicedefaults.finish_ports(domain, host)
    devicedefaults.finish_smartcards(domain)
    implicit.add_controllers(domain)
    for controller in domain.controllers:
        devicedefaults.finish_controller(domain, controller, emulator)
    if domain.os.arch not in emulator.arches:
        basics.check_emulator(domain, emulator, host)
    ports.assign_virtio_serial(domain)
    spapr.assign_spapr(domain)
    pciassign.assign_pci(domain)
    ports.assign_usb(domain)
    memory.check_hotplug(context)
    ports.assign_memory_slots(domain)
    check(Context(domain, host, emulator, kind))


def format_both(domain: Domain, *, live: bool = False) -> tuple[str, str]:
    """The XML of a domain without passwords, and with them: the same text if there are none.

    Args:
        live: with run-time values.
    """
    view = View(live=live, secure=True)
    implicit.pair_console(domain)
    whole = write_document(domain, "domain", view)
    return format_domain(domain, live=live) if view.secrets else whole, whole


def format_domain(domain: Domain, *, live: bool = False, secure: bool = False, migratable: bool = False) -> str:
    """The XML of a domain, as libvirt writes it.

    Args:
        live: with run-time values (id, aliases, ports, paths).
        secure: with passwords.
        migratable: only what older libvirts understand; see `trimmed`.
    """
    implicit.pair_console(domain)
    if migratable:
        domain = trimmed(domain)
    return write_document(domain, "domain", View(live=live, secure=secure))
