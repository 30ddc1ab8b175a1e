"""What libvirt itself checks of a definition as a whole, after its devices: what two of them cannot share."""

from virtd.conf.domain.base import DriveAddress
from virtd.conf.domain.check.rules import Context
from virtd.conf.domain.disk import Disk
from virtd.conf.domain.errors import conf_error, detail_error, xml_error
from virtd.conf.domain.hostdev import MdevSource
from virtd.conf.domain.infos import all_infos
from virtd.conf.domain.interface import HostdevSource
from virtd.conf.domain.memory import TUNE_LIMITS, HugePage

MAX_APPID = 128


def check_targets(x: Context) -> None:
    """Each disk has a name of its own."""
    seen: dict[str | None, Disk] = {}
    for disk in x.domain.disks:
        other = seen.setdefault(disk.target, disk)
        if other is not disk:
            raise xml_error(
                f"target '{disk.target}' duplicated for disk sources '{other.source_name or '<null>'}' and "
                f"'{disk.source_name or '<null>'}'"
            )


def place(address: DriveAddress) -> str:
    """A place on a controller as libvirt writes it in messages."""
    return f"controller='{address.controller}' bus='{address.bus}' target='{address.target}' unit='{address.unit}'"


def check_places(x: Context) -> None:
    """No two disks or SCSI host devices are at the same place of a controller."""
    seen: set[tuple[str | None, tuple[int, int, int, int]]] = set()
    for disk in x.domain.disks:
        address = disk.info.address
        if isinstance(address, DriveAddress):
            key = (disk.bus, address.key)
            if key in seen:
                raise conf_error(
                    f"Found duplicate drive address for disk with target name '{disk.target}' {place(address)}"
                )
            seen.add(key)
    hosts: set[tuple[int, int, int, int]] = set()
    for hostdev in x.domain.hostdevs:
        address = hostdev.info.address
        if hostdev.type != "scsi" or not isinstance(address, DriveAddress):
            continue
        if address.key in hosts:
            raise conf_error(f"SCSI host address {place(address)} in use by another SCSI host device")
        if ("scsi", address.key) in seen:
            raise conf_error(f"SCSI host address {place(address)} in use by another SCSI disk")
        hosts.add(address.key)


def check_resource(x: Context) -> None:
    """A fabric knows the guest by a name of letters that can be shown."""
    appid = x.domain.resource.appid if x.domain.resource is not None else None
    if appid is None:
        return
    if not all(" " <= letter <= "~" for letter in appid):
        raise detail_error("Fibre Channel 'appid' is not a printable string")
    if not 1 <= len(appid) <= MAX_APPID:
        raise detail_error(f"Fibre Channel 'appid' string length must be between [1, {MAX_APPID}]")


def check_hostdevs(x: Context) -> None:
    """Each host device is given once."""
    hostdevs = x.domain.hostdevs
    for number, hostdev in enumerate(hostdevs):
        same = (one for one in hostdevs[:number] if one.mode == hostdev.mode and one.type == hostdev.type)
        if any(one.source == hostdev.source for one in same):
            raise xml_error("Hostdev already exists in the domain configuration")
    cards = [one.source.address for one in x.domain.interfaces if isinstance(one.source, HostdevSource)]
    for number, card in enumerate(cards):
        if card is not None and card in cards[:number]:
            raise xml_error("Hostdev already exists in the domain configuration")
    if sum(bool(one.ramfb) and isinstance(one.source, MdevSource) for one in hostdevs) > 1:
        raise xml_error("Only one vgpu device can have 'ramfb' enabled")


def check_hugepages(x: Context) -> None:
    """Huge pages are for NUMA cells, each cell has one size, and there is one size for the rest."""
    backing = x.domain.memory_backing
    pages = backing.hugepages.pages if backing is not None and backing.hugepages is not None else []
    for number, page in enumerate(pages):
        for other in pages[:number]:
            if shares(page, other):
                raise detail_error(f"nodeset attribute of hugepages of sizes {page.size} and {other.size} intersect")
            if page.nodeset is None and other.nodeset is None:
                raise detail_error(f"two master hugepages detected: {page.size} and {other.size}")


def check_page_nodes(x: Context) -> None:
    """Huge pages are for NUMA cells that exist."""
    backing = x.domain.memory_backing
    for page in backing.hugepages.pages if backing is not None and backing.hugepages is not None else ():
        missing = next((node for node in sorted(page.nodeset or ()) if node >= x.cells), None)
        if missing is not None:
            raise detail_error(f"hugepages: node {missing} not found")


def shares(one: HugePage, other: HugePage) -> bool:
    """Whether two sizes of pages are asked for the same cell."""
    return bool(one.nodeset and other.nodeset and one.nodeset & other.nodeset)


def check_firmware(x: Context) -> None:
    """Who lets the firmware be chosen does not choose it; who chooses it says where it is."""
    os = x.domain.os
    loader, nvram = os.loader, os.nvram
    text = None
    if os.firmware is not None:
        given = [name for name in ("readonly", "type") if loader is not None and getattr(loader, name) is not None]
        if given:
            text = f"loader attribute '{given[0]}' cannot be specified when firmware autoselection is enabled"
        elif loader is not None and loader.path is not None:
            text = "loader path cannot be specified when firmware autoselection is enabled"
        elif nvram is not None and nvram.template is not None:
            text = "nvram attribute 'template' cannot be specified when firmware autoselection is enabled"
        elif loader is not None and loader.secure is False:
            text = "loader attribute 'secure' cannot be specified when firmware autoselection is enabled"
        elif os.firmware == "bios" and nvram is not None and (nvram.path is not None or nvram.source is not None):
            text = "firmware type 'bios' does not support nvram"
    elif os.firmware_features:
        text = "cannot use feature-based firmware autoselection when firmware autoselection is disabled"
    elif (loader is None or loader.path is None) and (loader is not None or nvram is not None):
        text = "no loader path specified and firmware auto selection disabled"
    elif loader is not None and loader.stateless and nvram is not None:
        what = "NVRAM template" if nvram.template is not None else "NVRAM"
        text = f"{what} is not permitted when loader is stateless"
    if text is not None:
        raise detail_error(text)


def check_cputune(x: Context) -> None:
    """The kernel's bounds."""
    tune = x.domain.cputune
    for name, low, high in TUNE_LIMITS if tune is not None else ():
        value = getattr(tune, name)
        if value and not low <= value <= high and not ("quota" in name and value < 0):
            raise conf_error(f"Value of cputune '{name}' must be in range [{low}, {high}]")


def check_boot(x: Context) -> None:
    """How long is waited."""
    menu = x.domain.os.bootmenu_timeout
    if menu is not None and menu > 65535:
        raise conf_error("invalid value for boot menu timeout, must be in range [0,65535]")
    timeout = x.domain.os.reboot_timeout
    if timeout is not None and not -1 <= timeout <= 65535:
        raise conf_error("invalid value for rebootTimeout, must be in range [-1,65535]")


def check_blkio(x: Context) -> None:
    """Each device is limited once."""
    tune = x.domain.blkiotune
    paths = [device.path for device in tune.devices] if tune is not None else []
    for number, path in enumerate(paths):
        if path in paths[:number]:
            raise xml_error(f"duplicate blkio device path '{path}'")


def check_idmap(x: Context) -> None:
    """Users and groups are mapped together, if at all, and root is among them."""
    domain = x.domain
    if bool(domain.uidmap) != bool(domain.gidmap):
        raise conf_error("uid and gid should be mapped both")
    if (domain.uidmap and domain.uidmap[0].start) or (domain.gidmap and domain.gidmap[0].start):
        raise conf_error("You must map the root user of container")


def check_iothreads(x: Context) -> None:
    """A pool of threads has a size."""
    for low, high in [(one.pool_min, one.pool_max) for one in x.domain.iothread_ids] + [
        (x.domain.default_iothread_min, x.domain.default_iothread_max)
    ]:
        if high is not None and high < 1:
            raise conf_error("thread_pool_max must be a positive integer")
        if low is not None and low > (-1 if high is None else high):
            raise conf_error("thread_pool_min must be smaller or equal to thread_pool_max")


def check_iommu(x: Context) -> None:
    """Interrupts are remapped outside the kernel."""
    iommu, features = x.domain.iommu, x.domain.features
    if iommu is None:
        return
    if iommu.intremap and not (features is not None and features.ioapic == "qemu"):
        raise conf_error("IOMMU interrupt remapping requires split I/O APIC (ioapic driver='qemu')")
    if iommu.eim and not iommu.intremap:
        raise conf_error("IOMMU eim requires interrupt remapping to be enabled")


def check_aliases(x: Context) -> None:
    """Each device has a name of its own."""
    seen: set[str] = set()
    for info in all_infos(x.domain):
        if info.alias is None:
            continue
        if info.alias in seen:
            raise xml_error(f"non unique alias detected: {info.alias}")
        seen.add(info.alias)


CHECKS = (
    check_targets,
    check_places,
    check_resource,
    check_hostdevs,
    check_aliases,
    check_hugepages,
    check_page_nodes,
    check_firmware,
    check_cputune,
    check_boot,
    check_blkio,
    check_idmap,
    check_iothreads,
    check_iommu,
)
