"""virConnectGetDomainCapabilities: what a guest can have with one emulator, machine type and domain type.

Each list is what libvirt's driver knows and this QEMU has.
"""

import os
from typing import TYPE_CHECKING, NamedTuple

from virtd import constants as c
from virtd.conf.cpu import x86map
from virtd.conf.domain import basics
from virtd.conf.domain.domain import VIRT_TYPES
from virtd.drivers.qemu.host import arches, cpumodels
from virtd.drivers.qemu.host.binary import Binary, Machine
from virtd.drivers.qemu.host.xmltext import Document, yes_no
from virtd.drivers.qemu.run import firmware
from virtd.errors import VirtError

if TYPE_CHECKING:
    from virtd.drivers.qemu.host.capabilities import Capabilities

# Values of a list, and the device or object that has to be there for each.
_VIDEOS = (
    ("vga", "VGA"),
    ("cirrus", "cirrus-vga"),
    ("vmvga", "vmware-svga"),
    ("qxl", "qxl"),
    ("virtio", "virtio-gpu-pci"),
    ("none", None),
    ("bochs", "bochs-display"),
    ("ramfb", "ramfb"),
)
_MEMORY_SOURCES = (
    ("file", "memory-backend-file"),
    ("anonymous", "memory-backend-ram"),
    ("memfd", "memory-backend-memfd"),
)
# Where libvirt looks for a firmware of which no description says that it fits.
_USUAL_LOADERS = ("/usr/share/OVMF/OVMF_CODE.fd", "/usr/share/OVMF/OVMF_CODE.secboot.fd")
_VIRTIO_MODELS = ("virtio", "virtio-transitional", "virtio-non-transitional")


def write(
    capabilities: "Capabilities", emulator: str | None, arch: str | None, machine: str | None, virt_type: str | None
) -> str:
    """The document; what is not given follows from the rest.

    Raises:
        VirtError: VIR_ERR_INVALID_ARG, the parts do not fit each other; VIR_ERR_CONFIG_UNSUPPORTED, no emulator.
    """
    binary, kind, found, name = resolve(capabilities, emulator, arch, machine, virt_type)
    entry = arches.find(name)
    target = entry.target if entry is not None else name
    flashes = [one for one in firmware.installed() if one.device == "flash" and one.fits(target, found.name)]
    doc = Document()
    with doc.element("domainCapabilities"):
        doc.add("path", binary.path)
        doc.add("domain", kind)
        doc.add("machine", found.name)
        doc.add("arch", name)
        doc.add("vcpu", max=found.max_cpus)
        doc.add("iothreads", supported=yes_no(binary.has("iothread")))
        _os(doc, flashes)
        _cpu(doc, binary, kind, name)
        with doc.element("memoryBacking", supported="yes"):
            doc.enum("sourceType", _having(binary, _MEMORY_SOURCES))
        with doc.element("devices"):
            _devices(doc, binary, found)
        _features(doc, binary, kind)
    return doc.text()


_PC = {"i686", "x86_64"}
"""Architectures of which an emulator of one is taken for one of the other, until the very end."""


class Choice(NamedTuple):
    """What is asked about."""

    binary: Binary
    virt_type: str
    machine: Machine
    arch: str


def resolve(
    capabilities: "Capabilities", emulator: str | None, arch: str | None, machine: str | None, virt_type: str | None
) -> Choice:
    """Choose what is not given to fit the rest.

    Raises:
        VirtError: as write().
    """
    if virt_type is not None and virt_type not in VIRT_TYPES.names:
        raise _invalid(f"unknown virttype: {virt_type}")
    if arch is not None and arch not in basics.ARCHES:
        raise _invalid(f"unknown architecture: {arch}")
    if emulator is None:
        wanted = arch or arches.host_arch()
        emulator = capabilities.find_emulator(wanted)
        if emulator is None:
            raise VirtError(
                c.VIR_ERR_CONFIG_UNSUPPORTED,
                f"unable to find any emulator to serve '{wanted}' architecture",
                domain=c.VIR_FROM_QEMU,
            )
    binary = capabilities.binary(emulator)
    runs = arches.RUNS.get(binary.target, ())
    own, host = runs[0] if runs else binary.target, arches.host_arch()
    name = arch or (host if {own, host} <= _PC else own)
    if name not in runs and not {own, name} <= _PC:
        raise _invalid(f"architecture from emulator '{own}' doesn't match given architecture '{name}'")
    entry = arches.find(name)
    works = entry is not None and arches.host_arch() in entry.hosts and capabilities.kvm().usable
    kind = virt_type or ("kvm" if works else "qemu")
    if kind != "qemu" and not (kind == "kvm" and works):
        accelerator, reason = ("kvm", f": {capabilities.kvm().reason}") if kind == "kvm" else ("tcg", "")
        raise _invalid(f"the accel '{accelerator}' is not supported by '{emulator}' on this host{reason}")
    if kind == "kvm":
        binary = capabilities.binary(emulator, accelerator="kvm")
    found = binary.machine(machine) if machine is not None else binary.default_machine
    if found is None or found.name == "none":
        raise _invalid(f"the machine '{machine}' is not supported by emulator '{emulator}'")
    if name not in runs:
        raise _invalid(f"Emulator '{emulator}' does not support arch '{name}'")
    return Choice(binary, kind, found, name)


def _invalid(text: str) -> VirtError:
    return VirtError(c.VIR_ERR_INVALID_ARG, text, domain=c.VIR_FROM_QEMU)


def _having(binary: Binary, pairs: tuple[tuple[str, str | None], ...]) -> list[str]:
    return [value for value, needed in pairs if needed is None or binary.has(needed)]


def _os(doc: Document, flashes: list[firmware.Firmware]) -> None:
    secure = any(one.secure for one in flashes)
    with doc.element("os", supported="yes"):
        doc.enum("firmware", ["efi"] if any("uefi" in one.interfaces for one in flashes) else [])
        with doc.element("loader", supported="yes"):
            for path in [one.path for one in flashes] or filter(os.path.exists, _USUAL_LOADERS):
                doc.add("value", path)
            doc.enum("type", ("rom", "pflash"))
            doc.enum("readonly", ("yes", "no"))
            doc.enum("secure", ("yes", "no") if secure else ("no",))


def _cpu(doc: Document, binary: Binary, kind: str, arch: str) -> None:
    with doc.element("cpu"):
        if kind == "kvm":
            with doc.element("mode", name="host-passthrough", supported="yes"):
                doc.enum("hostPassthroughMigratable", ("on", "off"))
        else:
            doc.add("mode", name="host-passthrough", supported="no")
        with doc.element("mode", name="maximum", supported="yes"):
            doc.enum("maximumMigratable", ("on", "off"))
        _host_model(doc, binary)
        with doc.element("mode", name="custom", supported="yes"):
            known = (model for model in binary.cpu_models if model.name in x86map.models())
            for model in sorted(known, key=lambda one: one.name, reverse=True):
                vendor, usable = x86map.models()[model.name].vendor or "unknown", yes_no(not model.blockers)
                deprecated = "yes" if model.deprecated else None
                doc.add("model", model.name, usable=usable, vendor=vendor, deprecated=deprecated)


def _host_model(doc: Document, binary: Binary) -> None:
    found = cpumodels.find_host_model(binary)
    if found is None:
        doc.add("mode", name="host-model", supported="no")
        return
    with doc.element("mode", name="host-model", supported="yes"):
        doc.add("model", found.model, fallback=found.fallback)
        if found.vendor is not None:
            doc.add("vendor", found.vendor)
        for name, policy in found.policies.items():
            doc.add("feature", policy=policy, name=name)


def _devices(doc: Document, binary: Binary, machine: Machine) -> None:
    with doc.element("disk", supported="yes"):
        doc.enum("diskDevice", ("disk", "cdrom", "floppy", "lun"))
        ide = ("ide",) if basics.is_i440fx(machine.name) else ()
        usb = ("usb",) if binary.has("usb-storage") else ()
        sata = ("sata",) if binary.has("ich9-ahci") else ()
        doc.enum("bus", (*ide, "fdc", "scsi", "virtio", *usb, *sata))
        doc.enum("model", _VIRTIO_MODELS)
    with doc.element("graphics", supported="yes"):
        vnc = ("vnc",) if "vnc" in binary.options else ()
        spice = ("spice",) if "spice" in binary.options else ()
        others = (name for name in ("egl-headless", "dbus") if name in binary.choices["display"])
        doc.enum("type", ("sdl", *vnc, *spice, *others))
    with doc.element("video", supported="yes"):
        doc.enum("modelType", _having(binary, _VIDEOS))
    with doc.element("hostdev", supported="yes"):
        doc.enum("mode", ("subsystem",))
        doc.enum("startupPolicy", ("default", "mandatory", "requisite", "optional"))
        doc.enum("subsysType", ("usb", "pci", "scsi"))
        doc.enum("capsType", ())
        doc.enum("pciBackend", ())
    with doc.element("rng", supported="yes"):
        doc.enum("model", _VIRTIO_MODELS)
        builtin = ("builtin",) if binary.has("rng-builtin") else ()
        doc.enum("backendModel", ("random", "egd", *builtin))
    with doc.element("filesystem", supported="yes"):
        virtiofs = ("virtiofs",) if binary.has("vhost-user-fs-pci") else ()
        doc.enum("driverType", ("path", "handle", *virtiofs))
    _tpm(doc, binary)
    with doc.element("redirdev", supported=yes_no(binary.has("usb-redir"))):
        doc.enum("bus", ("usb",))
    with doc.element("channel", supported="yes"):
        doc.enum("type", ("pty", "unix", *(("spicevmc",) if "spicevmc" in binary.choices["chardev"] else ())))


def _tpm(doc: Document, binary: Binary) -> None:
    models = [model for model in ("tpm-tis", "tpm-crb") if model in binary.tpm_models]
    if not models:
        doc.add("tpm", supported="no")
        return
    with doc.element("tpm", supported="yes"):
        doc.enum("model", models)
        passthrough = ("passthrough",) if "passthrough" in binary.tpm_types else ()
        emulator = ("emulator", "external") if "emulator" in binary.tpm_types else ()
        doc.enum("backendModel", (*passthrough, *emulator))
        doc.enum("backendVersion", ("1.2", "2.0"))


def _features(doc: Document, binary: Binary, kind: str) -> None:
    with doc.element("features"):
        doc.add("gic", supported="no")
        doc.add("vmcoreinfo", supported=yes_no(binary.has("vmcoreinfo")))
        doc.add("genid", supported=yes_no(binary.has("vmgenid")))
        doc.add("backingStoreInput", supported="yes")
        doc.add("backup", supported="yes")
        doc.add("sev", supported=yes_no(binary.sev is not None))
        doc.add("sgx", supported=yes_no(binary.sgx is not None))
        with doc.element("hyperv", supported="yes"):
            doc.enum("features", _HYPERV if kind == "kvm" else _HYPERV_WITHOUT_KVM)


_HYPERV_WITHOUT_KVM = ("spinlocks", "vendor_id")
_HYPERV = (
    *("relaxed", "vapic", "spinlocks", "vpindex", "runtime", "synic", "stimer", "reset", "vendor_id", "frequencies"),
    *("reenlightenment", "tlbflush", "ipi", "evmcs", "avic"),
)
