"""<os>: what the guest boots, and from what; <sysinfo>: what its firmware tells it of the machine."""

from virtd import constants as c
from virtd.conf.domain.disk import SourceBase
from virtd.conf.domain.errors import detail_error, xml_error
from virtd.conf.xml.model import Element, Model, View, attr, sub, subs
from virtd.conf.xml.types import INT, UINT, YES_NO, Choice

UNSUPPORTED = c.VIR_ERR_CONFIG_UNSUPPORTED

FIRMWARES = Choice("bios efi")
BOOT_DEVICES = Choice("fd cdrom hd network")


class FirmwareFeature(Model):
    """What a firmware must have, or must not have, to be chosen."""

    enabled = attr("@enabled", YES_NO, required=True)
    name = attr("@name", Choice("enrolled-keys secure-boot"), required=True)


class Loader(Model):
    """The firmware."""

    readonly = attr("@readonly", YES_NO)
    secure = attr("@secure", YES_NO)
    type = attr("@type", Choice("rom pflash none"))
    stateless = attr("@stateless", YES_NO)
    path = attr(".")

    def loaded(self, el: Element, view: View) -> None:
        """A firmware is a ROM unless it is said to be flash memory."""
        if self.path is not None and self.type is None:
            self.type = "rom"


class Nvram(Model):
    """Where the firmware keeps its variables, and what they are at first."""

    template = attr("@template")
    type = attr("@type", Choice("file block dir network volume nvme vhostuser"))
    source = sub("source", SourceBase, by="type")
    path = attr(".")

    def loaded(self, el: Element, view: View) -> None:
        """The variables are in a file, or in what a disk could be."""
        if self.type is not None:
            self.path = None


class AcpiTable(Model):
    """An ACPI table from a file."""

    type = attr(
        "@type",
        Choice("slic"),
        required=(c.VIR_ERR_XML_ERROR, "Missing acpi table type"),
        bad=(c.VIR_ERR_XML_ERROR, "Unknown acpi table type: %s"),
    )
    path = attr(".")


class BootDevice(Model):
    """One of the devices that are tried in turn."""

    dev = attr("@dev", BOOT_DEVICES, required=True)


class Os(Model):
    """What is booted, and how."""

    firmware = attr("@firmware", FIRMWARES, bad=(c.VIR_ERR_XML_ERROR, "unknown firmware value %s"))
    arch = attr("type/@arch")
    machine = attr("type/@machine")
    type = attr("type", bad=(UNSUPPORTED, "unknown OS type '%s'"), of=Choice("hvm linux xen exe uml xenpvh"))
    firmware_features = subs("firmware/feature", FirmwareFeature)
    loader = sub("loader", Loader)
    nvram = sub("nvram", Nvram)
    kernel = attr("kernel")
    initrd = attr("initrd")
    cmdline = attr("cmdline")
    dtb = attr("dtb")
    acpi_table = sub("acpi/table", AcpiTable)
    boot = subs("boot", BootDevice)
    bootmenu = attr("bootmenu/@enable", YES_NO)
    bootmenu_timeout = attr("bootmenu/@timeout", UINT)
    smbios = attr(
        "smbios/@mode", Choice("none emulate host sysinfo"), omit="none", bad=(UNSUPPORTED, "unknown smbios mode '%s'")
    )
    bios_serial = attr("bios/@useserial", YES_NO)
    reboot_timeout = attr("bios/@rebootTimeout", INT)

    def loaded(self, el: Element, view: View) -> None:
        """Without a menu there is nothing to wait for. There are as many boot devices as kinds of them."""
        self.machine = self.machine or None
        del self.boot[len(BOOT_DEVICES.names) :]
        if len(el.findall("acpi/table")) > 1:
            raise xml_error("Only one acpi table is supported")
        self.complete_features()
        if not self.bootmenu:
            self.bootmenu_timeout = None

    def complete_features(self) -> None:
        """Keys are enrolled for secure boot, so whoever wants them wants it.

        Raises:
            VirtError: VIR_ERR_XML_DETAIL.
        """
        by_name = {feature.name: feature for feature in self.firmware_features}
        keys, secure = by_name.get("enrolled-keys"), by_name.get("secure-boot")
        if keys is not None and keys.enabled:
            if secure is None:
                self.firmware_features.append(FirmwareFeature(name="secure-boot", enabled=True))
            elif not secure.enabled:
                raise detail_error(
                    "firmware feature 'enrolled-keys' cannot be enabled when firmware feature 'secure-boot' is disabled"
                )
        self.firmware_features.sort(key=lambda feature: feature.name or "")


class Entry(Model):
    """One string of an SMBIOS table."""

    name = attr("@name")
    text = attr(".")


class Text(Model):
    """A string without a name."""

    text = attr(".")


# The strings each table can have, in libvirt's order.
BIOS = ("vendor", "version", "date", "release")
SYSTEM = ("manufacturer", "product", "version", "serial", "uuid", "sku", "family")
BASE_BOARD = ("manufacturer", "product", "version", "serial", "asset", "location")
CHASSIS = ("manufacturer", "version", "serial", "asset", "sku")


def in_table(entries: list[Entry], names: tuple[str, ...]) -> list[Entry]:
    """Those strings that a table can have, each once, in its order."""
    by_name = {entry.name: entry for entry in reversed(entries) if entry.text is not None}
    return [by_name[name] for name in names if name in by_name]


class BaseBoard(Model):
    """An SMBIOS table 2."""

    entries = subs("entry", Entry)

    def loaded(self, el: Element, view: View) -> None:
        """Bring the strings into order."""
        self.entries = in_table(self.entries, BASE_BOARD)


class FwCfg(Model):
    """A blob for the guest's firmware: its text, or a file."""

    name = attr("@name")
    file = attr("@file")
    text = attr(".")


class Sysinfo(Model, by="@type"):
    """What the firmware tells the guest; the kinds are SMBIOS tables and firmware blobs."""


class Smbios(Sysinfo, kind="smbios"):
    """SMBIOS tables."""

    bios = subs("bios/entry", Entry)
    system = subs("system/entry", Entry)
    base_boards = subs("baseBoard", BaseBoard)
    chassis = subs("chassis/entry", Entry)
    oem_strings = subs("oemStrings/entry", Text)

    def loaded(self, el: Element, view: View) -> None:
        """Bring the strings into order."""
        self.bios = in_table(self.bios, BIOS)
        self.system = in_table(self.system, SYSTEM)
        self.chassis = in_table(self.chassis, CHASSIS)


class FwCfgs(Sysinfo, kind="fwcfg"):
    """Blobs for QEMU's fw_cfg device."""

    entries = subs("entry", FwCfg)


class IdRange(Model):
    """A range of ids of a user namespace."""

    start = attr("@start", UINT, required=True)
    target = attr("@target", UINT, required=True)
    count = attr("@count", UINT, required=True)


class Resource(Model):
    """The cgroup and fabric the guest belongs to."""

    partition = attr("partition")
    appid = attr("fibrechannel/@appid")


class Pm(Model):
    """Which sleep states the guest's firmware offers."""

    suspend_to_mem = attr("suspend-to-mem/@enabled", YES_NO)
    suspend_to_disk = attr("suspend-to-disk/@enabled", YES_NO)


PERF_EVENTS = Choice(
    "cmt mbmt mbml cpu_cycles instructions cache_references cache_misses branch_instructions branch_misses "
    "bus_cycles stalled_cycles_frontend stalled_cycles_backend ref_cpu_cycles cpu_clock task_clock page_faults "
    "context_switches cpu_migrations page_faults_min page_faults_maj alignment_faults emulation_faults"
)


class PerfEvent(Model):
    """A counter of the host's CPU that is kept for the guest."""

    name = attr(
        "@name",
        PERF_EVENTS,
        required=True,
    )
    enabled = attr("@enabled", YES_NO, required=True)


class Seclabel(Model):
    """How the guest is confined by one security driver."""

    type = attr("@type", Choice("none dynamic static"))
    model = attr("@model")
    relabel = attr("@relabel", YES_NO)
    label = attr("label")
    imagelabel = attr("imagelabel", live=True)
    baselabel = attr("baselabel")
