"""Devices of which little is to be checked: directories, TPMs, watchdogs, shared memory and so on."""

from typing import Any

from virtd.conf.domain.base import CcidAddress
from virtd.conf.domain.check.chars import check_common_source, check_qemu_source
from virtd.conf.domain.check.rules import Context, Rule, Rules
from virtd.conf.domain.devices import EgdBackend, Iommu
from virtd.conf.domain.errors import conf_error, qemu_error, xml_error
from virtd.conf.domain.filesystem import Filesystem
from virtd.conf.domain.redirect import PassthroughSmartcard
from virtd.conf.domain.tpm import EmulatorTpm, ExternalTpm, PassthroughTpm

MIN_CID = 3

VIRTIO_OPTIONS = Rule(
    lambda x, d: not (d.model or "").startswith("virtio") and d.driver is not None and d.driver.virtio.given(),
    "{v} driver option is only supported for virtio devices",
)


def driver_of(one: Filesystem) -> str | None:
    """How a directory is served; "path" if nothing is said."""
    return (one.driver.type if one.driver is not None else None) or "path"


def check_filesystem(x: Context, one: Filesystem) -> None:
    """A directory has a source and a name in the guest."""
    if one.info.boot_order is not None and driver_of(one) != "virtiofs":
        raise conf_error("boot order is only supported for virtiofs")


FILESYSTEM: Rules = (check_filesystem,)
QEMU_FILESYSTEM: Rules = (
    Rule(lambda x, d: d.type != "mount", "only supports mount filesystem type"),
    Rule(
        lambda x, d: (d.fmode or d.dmode) and d.accessmode != "mapped",
        "fmode and dmode must be used with accessmode=mapped",
    ),
    Rule(
        lambda x, d: driver_of(d) == "handle" and d.accessmode not in (None, "passthrough"),
        "only supports passthrough accessmode",
    ),
    Rule(lambda x, d: driver_of(d) in ("loop", "nbd", "ploop"), "Filesystem driver type not supported"),
    Rule(lambda x, d: driver_of(d) == "virtiofs" and d.readonly, "virtiofs does not yet support read-only mode"),
    Rule(
        lambda x, d: driver_of(d) == "virtiofs" and d.accessmode not in (None, "passthrough"),
        "virtiofs only supports passthrough accessmode",
    ),
    Rule(
        lambda x, d: driver_of(d) == "virtiofs" and d.driver.wrpolicy is not None,
        "virtiofs does not support wrpolicy",
    ),
    Rule(lambda x, d: driver_of(d) == "virtiofs" and d.model is not None, "virtiofs does not support model"),
    Rule(lambda x, d: driver_of(d) == "virtiofs" and d.driver.format is not None, "virtiofs does not support format"),
    Rule(
        lambda x, d: driver_of(d) == "virtiofs" and d.multidevs not in (None, "default"),
        "virtiofs does not support multidevs",
    ),
    Rule(lambda x, d: driver_of(d) == "virtiofs" and not x.shared_memory, "'virtiofs' requires shared memory"),
)

WATCHDOG: Rules = (
    Rule(
        lambda x, d: d.model == "i6300esb" and d.info.address is not None and d.info.address.kind != "pci",
        "{d.model} model of watchdog can go only on PCI bus",
    ),
    Rule(
        lambda x, d: d.model == "ib700" and d.info.address is not None,
        "{d.model} model of watchdog does not support configuring the address",
    ),
    Rule(
        lambda x, d: d.model == "diag288" and d.info.address is not None,
        "{d.model} model of watchdog is virtual and cannot go on any bus.",
    ),
    Rule(lambda x, d: d.model == "diag288", "{d.model} model of watchdog is allowed for s390 and s390x only"),
)

VIRTIO_BALLOONS = ("virtio", "virtio-transitional", "virtio-non-transitional")
BALLOON: Rules = (
    Rule(
        lambda x, d: d.model not in ("none", *VIRTIO_BALLOONS),
        "Memory balloon device type '{d.model}' is not supported by this version of qemu",
    ),
)


def check_rng(x: Context, one: Any) -> None:
    """A back end that is connected to something knows to what."""
    if isinstance(one.backend, EgdBackend):
        check_common_source(one, one.backend.source)


def check_qemu_rng(x: Context, one: Any) -> None:
    """What QEMU's back ends need."""
    if isinstance(one.backend, EgdBackend):
        check_qemu_source(x, one.backend.source)


RNG: Rules = (check_rng,)
QEMU_RNG: Rules = (check_qemu_rng,)


def check_smartcard(x: Context, one: Any) -> None:
    """A smartcard is in a reader."""
    if isinstance(one, PassthroughSmartcard):
        check_common_source(one, one.source)
    if one.info.address is not None and one.info.address.kind != "ccid":
        raise conf_error("Controllers must use the 'ccid' address type")


def check_qemu_smartcard(x: Context, one: Any) -> None:
    """QEMU's reader has one slot."""
    address = one.info.address
    first = not isinstance(address, CcidAddress) or (address.controller == 0 and address.slot == 0)
    if len(x.domain.smartcards) > 1 or not first:
        raise qemu_error("this QEMU binary lacks multiple smartcard support")
    if isinstance(one, PassthroughSmartcard):
        check_qemu_source(x, one.source)


SMARTCARD: Rules = (check_smartcard,)
QEMU_SMARTCARD: Rules = (check_qemu_smartcard,)

SHMEM: Rules = (
    Rule(lambda x, d: "/" in (d.name or ""), "shmem name cannot include '/' character"),
    Rule(lambda x, d: d.name == ".", "shmem name cannot be equal to '.'"),
    Rule(lambda x, d: d.name == "..", "shmem name cannot be equal to '..'"),
)


def shown_size(kib: int) -> str:
    """What is said of a size."""
    return str(kib)


QEMU_SHMEM: Rules = (
    Rule(lambda x, d: not x.emulator.has(d.model or ""), "ivshmem device is not supported with this QEMU binary"),
    Rule(
        lambda x, d: d.model == "ivshmem-doorbell" and not d.server,
        "shmem model '{d.model}' is supported only with server option enabled",
    ),
    Rule(
        lambda x, d: d.model == "ivshmem-doorbell" and d.size,
        "shmem model '{d.model}' does not support size setting",
    ),
    Rule(
        lambda x, d: d.model == "ivshmem-plain" and d.server,
        "shmem model '{d.model}' is supported only with server option disabled",
    ),
)


def check_tpm(x: Context, one: Any) -> None:
    """What each back end needs."""
    backend = one.backend
    if isinstance(backend, EmulatorTpm) and backend.version == "1.2" and backend.banks:
        raise xml_error("<active_pcr_banks/> requires TPM version '2.0'")
    if isinstance(backend, ExternalTpm):
        text = None
        if backend.type != "unix":
            text = "only source type 'unix' is supported for external TPM device"
        elif backend.mode not in (None, "connect"):
            text = "only 'client' mode is supported for external TPM device"
        elif backend.path is None:
            text = "missing socket path for external TPM device"
        if text is not None:
            raise xml_error(text)


def check_qemu_tpm(x: Context, one: Any) -> None:
    """What TPMs a PC has."""
    if isinstance(one.backend, EmulatorTpm) and one.backend.version == "1.2":
        if one.model == "tpm-crb":
            raise qemu_error(f"Unsupported interface '{one.model}' for TPM 1.2")
        if one.model == "tpm-spapr":
            raise qemu_error("TPM 1.2 is not supported with the SPAPR device model")
    if one.model == "spapr-tpm-proxy" and not isinstance(one.backend, PassthroughTpm):
        raise qemu_error(f"TPM Proxy model {one.model} requires 'Passthrough' backend")
    if not x.emulator.has(one.model or ""):
        raise qemu_error(f"The QEMU executable {x.emulator.path} does not support TPM model {one.model}")


TPM: Rules = (check_tpm,)
QEMU_TPM: Rules = (check_qemu_tpm,)

IOMMU_OPTIONS = ("intremap", "caching_mode", "eim", "iotlb", "aw_bits")


def check_iommu(x: Context, one: Iommu) -> None:
    """What only some IOMMUs have."""
    if one.model == "intel":
        if one.info.address is not None:
            raise xml_error("iommu model 'intel' can't have address")
        return
    if any(getattr(one, name) is not None for name in IOMMU_OPTIONS):
        raise xml_error(f"iommu model '{one.model}' doesn't support additional attributes")
    if one.model == "smmuv3" and one.info.address is not None:
        raise xml_error("iommu model 'smmuv3' can't have address")


def check_qemu_iommu(x: Context, one: Iommu) -> None:
    """The machine must have been made for an IOMMU."""
    features = x.domain.features
    if one.model == "intel" and not x.q35:
        raise qemu_error("IOMMU device: 'intel' is only supported with Q35 machines")
    if one.model == "smmuv3":
        raise qemu_error("IOMMU device: 'smmuv3' is only supported with ARM Virt machines")
    if one.model == "virtio":
        if not x.q35:
            raise qemu_error("IOMMU device: 'virtio' is only supported with Q35 and ARM Virt machines")
        if not (features is not None and features.acpi):
            raise qemu_error("IOMMU device: 'virtio' requires ACPI")
        if one.info.address is not None and one.info.address.kind != "pci":
            raise qemu_error("IOMMU device: 'virtio' needs a PCI address")


IOMMU: Rules = (check_iommu,)
QEMU_IOMMU: Rules = (check_qemu_iommu,)

VSOCK: Rules = (Rule(lambda x, d: d.cid is not None and d.cid < MIN_CID, f"guest CIDs must be >= {MIN_CID}"),)


def check_nvram(x: Context, one: Any) -> None:
    """POWER machines have it."""
    raise qemu_error("nvram device is only supported for PPC64")


NVRAM: Rules = (check_nvram,)
