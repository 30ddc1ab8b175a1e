"""<domain>: the root of the model. What stands here is only what belongs to the guest as a whole."""

from typing import Any
from uuid import uuid4

from virtd import constants as c
from virtd.conf.domain.chardev import Channel, Console, Parallel, Serial
from virtd.conf.domain.controller import Controller
from virtd.conf.domain.cpu import Cpu, Vcpu
from virtd.conf.domain.devices import Balloon, Hub, Iommu, Lease, NvramDevice, Panic, Rng, Shmem, Vsock, Watchdog
from virtd.conf.domain.disk import Disk
from virtd.conf.domain.display import Audio, Graphics, Input, Sound, Video
from virtd.conf.domain.errors import internal_error, xml_error
from virtd.conf.domain.features import Clock, Features
from virtd.conf.domain.filesystem import Filesystem
from virtd.conf.domain.hostdev import Hostdev
from virtd.conf.domain.interface import Interface
from virtd.conf.domain.memory import BlkioTune, CpuTune, IothreadDef, MemoryBacking, MemoryTune, NumaTune
from virtd.conf.domain.memorydevice import MemoryDevice
from virtd.conf.domain.os import IdRange, Os, PerfEvent, Pm, Resource, Seclabel, Sysinfo
from virtd.conf.domain.redirect import RedirDevice, RedirFilter, Smartcard
from virtd.conf.domain.tpm import Tpm
from virtd.conf.xml.model import NAMESPACES, Element, Model, View, attr, part, raw, sub, subs
from virtd.conf.xml.types import CPUSET, INT, KIB, LONG, ON_OFF, TEXT, UINT, ULONG, UUID, YES_NO, Choice, Integer, Type
from virtd.errors import VirtError

UNSUPPORTED = c.VIR_ERR_CONFIG_UNSUPPORTED

INTERNAL = c.VIR_ERR_INTERNAL_ERROR

VIRT_TYPES = Choice("qemu kqemu kvm xen lxc uml openvz test vmware hyperv vbox phyp parallels bhyve vz hvf")
ACTIONS = Choice("destroy restart rename-restart preserve")
CRASH_ACTIONS = Choice("destroy restart rename-restart preserve coredump-destroy coredump-restart")


UINT_HEX = Integer(0, (1 << 32) - 1, base=16, template="0x%04x")


PARTS = (
    "name uuid genid title description seclabel maxMemory memory currentMemory memoryBacking blkiotune memtune vcpu "
    "vcpus iothreads defaultiothread iothreadids cputune cpu numatune resource features on_poweroff on_reboot on_crash "
    "on_lockfailure pm perf clock os devices idmap sysinfo keywrap launchSecurity metadata"
)
DEVICES = (
    "emulator disk controller lease filesystem interface smartcard parallel serial console channel input graphics "
    "sound audio video hostdev watchdog memballoon rng tpm nvram hub redirdev redirfilter panic shmem memory iommu "
    "vsock"
)
"""Both in the order in which libvirt reads them."""

LISTS_OF_TWINS = {
    "os": ("boot",),
    "cputune": ("vcpupin", "iothreadpin", "vcpusched", "iothreadsched", "emulatorpin", "cachetune", "memorytune"),
    "cpu/numa": ("cell",),
}
"""Where libvirt looks for all of a kind, in whichever element of the name they are."""


class KeyWrap(Model):
    """Whether an IBM machine wraps a kind of keys for the guest."""

    name = attr("@name", Choice("aes dea"), required=True)
    state = attr("@state", ON_OFF, required=True)


class LaunchSecurity(Model, by="@type"):
    """How the guest is kept from the host's eyes."""


POLICY = (c.VIR_ERR_XML_ERROR, "failed to get launch security policy")


class Sev(LaunchSecurity, kind="sev"):
    """AMD's encrypted memory."""

    kernel_hashes = attr("@kernelHashes", YES_NO)
    cbitpos = attr("cbitpos", UINT, bad=(c.VIR_ERR_XML_ERROR, "Invalid format for launch security cbitpos"))
    reduced_bits = attr(
        "reducedPhysBits", UINT, bad=(c.VIR_ERR_XML_ERROR, "Invalid format for launch security reduced-phys-bits")
    )
    policy = attr("policy", UINT_HEX, bad=POLICY)
    dh_cert = attr("dhCert")
    session = attr("session")

    def loaded(self, el: Element, view: View) -> None:
        """What is allowed must be said."""
        if self.policy is None:
            raise VirtError(*POLICY, domain=c.VIR_FROM_DOMAIN)


class S390Pv(LaunchSecurity, kind="s390-pv"):
    """IBM's protected guests."""


def qemu_internal(text: str) -> VirtError:
    """An error of the QEMU driver's own part of a definition."""
    return internal_error(text, domain=c.VIR_FROM_QEMU)


class QemuArg(Model):
    """An argument for QEMU's command line."""

    value = attr("@value")

    def loaded(self, el: Element, view: View) -> None:
        """It is said."""
        if self.value is None:
            raise qemu_internal("No qemu command-line argument specified")


class QemuEnv(Model):
    """A variable of QEMU's environment."""

    name = attr("@name")
    value = attr("@value")

    def loaded(self, el: Element, view: View) -> None:
        """Its name is one."""
        name = self.name
        if name is None:
            raise qemu_internal("No qemu environment name specified")
        if not (name[:1] == "_" or (name[:1].isascii() and name[:1].isalpha())):
            raise qemu_internal("Invalid environment name, it must begin with a letter or underscore")
        if not all(letter == "_" or (letter.isascii() and letter.isalnum()) for letter in name):
            raise qemu_internal("Invalid environment name, it must contain only alphanumerics and underscore")


class QemuCapability(Model):
    """A capability that QEMU is taken to have, or not to have, whatever probing says."""

    capability = attr("@capability")

    def loaded(self, el: Element, view: View) -> None:
        """It is named."""
        if self.capability is None:
            raise qemu_internal("missing capability name")


OVERRIDES: dict[str, Type[Any]] = {"string": TEXT, "signed": LONG, "unsigned": ULONG, "bool": Choice("true false")}


def fits(kind: str, value: str) -> bool:
    """Whether a value is of the type that a property is said to have."""
    try:
        OVERRIDES[kind].parse(value)
    except ValueError:
        return False
    return True


class QemuProperty(Model):
    """A property of a QEMU device that is set in another way than virtd would."""

    name = attr("@name")
    type = attr("@type", Choice("string signed unsigned bool remove"), required=True)
    value = attr("@value")

    def loaded(self, el: Element, view: View) -> None:
        """It has a value of its type, unless it is taken away."""
        value, text = self.value, None
        if self.name is None:
            text = "missing 'name' attribute for qemu:property"
        elif self.type == "remove":
            if value is not None:
                text = "setting 'value' attribute of 'qemu:property' doesn't make sense with 'remove' type"
        elif value is None:
            text = "missing 'value' attribute for 'qemu:property'"
        elif not fits(self.type or "", value):
            text = f"invalid value '{value}' of 'value' attribute of 'qemu:property'"
        if text is not None:
            raise xml_error(text, domain=c.VIR_FROM_QEMU)


class QemuOverride(Model):
    """Properties of one device, by its alias."""

    alias = attr("@alias")
    properties = subs("qemu:frontend/qemu:property", QemuProperty)

    def loaded(self, el: Element, view: View) -> None:
        """The device is named."""
        if self.alias is None:
            raise xml_error("missing 'alias' attribute for qemu:device", domain=c.VIR_FROM_QEMU)


class Domain(Model):
    """A guest."""

    type = attr("@type", VIRT_TYPES, bad=(UNSUPPORTED, "invalid domain type %s"))
    id = attr("@id", INT, live=True)
    qemu_namespace = attr(
        "@xmlns:qemu",
        TEXT,
        default=NAMESPACES["qemu"],
        when=lambda d, view: bool(
            d.qemu_args or d.qemu_env or d.qemu_add or d.qemu_del or d.qemu_deprecation or d.qemu_overrides
        ),
    )
    name = attr("name")
    uuid = attr("uuid", UUID, bad=(c.VIR_ERR_INTERNAL_ERROR, "malformed uuid element"))
    genid = attr("genid", UUID, bad=(c.VIR_ERR_INTERNAL_ERROR, "malformed genid element"))
    title = attr("title")
    description = attr("description")
    metadata = raw("metadata")
    max_memory_slots = attr("maxMemory/@slots", UINT, bad=(c.VIR_ERR_XML_ERROR, "Failed to parse memory slot count"))
    max_memory = attr("maxMemory", KIB)
    dump_core = attr("memory/@dumpCore", ON_OFF)
    memory = attr("memory", KIB)
    current_memory = attr("currentMemory", KIB)
    blkiotune = sub("blkiotune", BlkioTune)
    memtune = sub("memtune", MemoryTune)
    memory_backing = sub("memoryBacking", MemoryBacking)
    vcpu_placement = attr("vcpu/@placement", Choice("static auto"))
    vcpu_cpuset = attr("vcpu/@cpuset", CPUSET)
    vcpu_current = attr("vcpu/@current", UINT)
    vcpu = attr("vcpu", UINT, bad=(c.VIR_ERR_XML_ERROR, "maximum vcpus count must be an integer"))
    vcpus = subs("vcpus/vcpu", Vcpu)
    iothreads = attr("iothreads", UINT, bad=(c.VIR_ERR_XML_ERROR, "invalid iothreads count '%s'"))
    iothread_ids = subs("iothreadids/iothread", IothreadDef)
    default_iothread_min = attr("defaultiothread/@thread_pool_min", INT)
    default_iothread_max = attr("defaultiothread/@thread_pool_max", INT)
    cputune = sub("cputune", CpuTune)
    numatune = sub("numatune", NumaTune, only=(c.VIR_ERR_XML_ERROR, "only one numatune is supported"))
    resource = sub("resource", Resource, only=(c.VIR_ERR_XML_ERROR, "only one resource element is supported"))
    sysinfo = subs("sysinfo", Sysinfo)
    bootloader = attr("bootloader")
    bootloader_args = attr("bootloader_args")
    os = part("os", Os)
    uidmap = subs("idmap/uid", IdRange)
    gidmap = subs("idmap/gid", IdRange)
    features = sub("features", Features)
    cpu = sub("cpu", Cpu)
    clock = part("clock", Clock)
    on_poweroff = attr("on_poweroff", ACTIONS, bad=(UNSUPPORTED, "unknown on_poweroff action: %s"))
    on_reboot = attr("on_reboot", ACTIONS, bad=(UNSUPPORTED, "unknown on_reboot action: %s"))
    on_crash = attr("on_crash", CRASH_ACTIONS, bad=(UNSUPPORTED, "unknown on_crash action: %s"))
    on_lockfailure = attr(
        "on_lockfailure",
        Choice("poweroff restart pause ignore"),
        bad=(UNSUPPORTED, "unknown on_lockfailure action: %s"),
    )
    pm = sub("pm", Pm)
    perf = subs("perf/event", PerfEvent)
    emulator = attr("devices/emulator")
    disks = subs("devices/disk", Disk)
    controllers = subs("devices/controller", Controller)
    leases = subs("devices/lease", Lease)
    filesystems = subs("devices/filesystem", Filesystem)
    interfaces = subs("devices/interface", Interface)
    smartcards = subs("devices/smartcard", Smartcard)
    serials = subs("devices/serial", Serial)
    parallels = subs("devices/parallel", Parallel)
    consoles = subs("devices/console", Console)
    channels = subs("devices/channel", Channel)
    inputs = subs("devices/input", Input)
    tpms = subs("devices/tpm", Tpm)
    graphics = subs("devices/graphics", Graphics)
    sounds = subs("devices/sound", Sound)
    audios = subs("devices/audio", Audio)
    videos = subs("devices/video", Video)
    hostdevs = subs("devices/hostdev", Hostdev)
    redirdevs = subs("devices/redirdev", RedirDevice)
    redirfilter = sub(
        "devices/redirfilter", RedirFilter, only=(INTERNAL, "only one set of redirection filter rule is supported")
    )
    hubs = subs("devices/hub", Hub)
    watchdogs = subs("devices/watchdog", Watchdog)
    memballoon = sub("devices/memballoon", Balloon, only=(INTERNAL, "only a single memory balloon device is supported"))
    rngs = subs("devices/rng", Rng)
    nvram = sub("devices/nvram", NvramDevice, only=(INTERNAL, "only a single nvram device is supported"))
    panics = subs("devices/panic", Panic)
    shmems = subs("devices/shmem", Shmem)
    memory_devices = subs("devices/memory", MemoryDevice)
    iommu = sub("devices/iommu", Iommu, only=(c.VIR_ERR_XML_ERROR, "only a single IOMMU device is supported"))
    vsock = sub("devices/vsock", Vsock, only=(c.VIR_ERR_XML_ERROR, "only a single vsock device is supported"))
    seclabels = subs("seclabel", Seclabel)
    keywraps = subs("keywrap/cipher", KeyWrap)
    launch_security = sub("launchSecurity", LaunchSecurity)
    qemu_args = subs("qemu:commandline/qemu:arg", QemuArg)
    qemu_env = subs("qemu:commandline/qemu:env", QemuEnv)
    qemu_add = subs("qemu:capabilities/qemu:add", QemuCapability)
    qemu_del = subs("qemu:capabilities/qemu:del", QemuCapability)
    qemu_overrides = subs("qemu:override/qemu:device", QemuOverride)
    qemu_deprecation = attr("qemu:deprecation/@behavior")

    reading = (*PARTS.split(), *(f"devices/{name}" for name in DEVICES.split()))

    @classmethod
    def entered(cls, el: Element) -> None:
        """Of an element that stands twice the first counts, but lists in it are all read as one."""
        for path, kinds in LISTS_OF_TWINS.items():
            twins = el.findall(path)
            for other in twins[1:]:
                for child in list(other):
                    if child.tag in kinds:
                        twins[0].append(child)

    def loaded(self, el: Element, view: View) -> None:
        """An empty <genid> asks for one to be made."""
        if len(el.findall("genid")) > 1:
            raise xml_error("element 'genid' can only appear once")
        if self.genid is None and el.find("genid") is not None:
            self.genid = str(uuid4())
        if self.vcpu is None and el.find("vcpu") is not None:
            raise xml_error("maximum vcpus count must be an integer")
