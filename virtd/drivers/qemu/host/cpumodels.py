"""CPU models as one emulator has them, in libvirt's terms: what each lacks here, and the best CPU of its guests."""

from collections.abc import Mapping

from virtd import constants as c
from virtd.conf.cpu import x86, x86map
from virtd.conf.cpu.document import CpuDefinition
from virtd.drivers.qemu.host.binary import Binary
from virtd.errors import VirtError


def blockers(binary: Binary) -> dict[str, int]:
    """The models that an emulator has, and the features of each that it cannot give here."""
    return {model.name: x86map.from_qemu(model.blockers) for model in binary.cpu_models}


def host_model(binary: Binary) -> CpuDefinition:
    """What mode='host-model' means: everything that the emulator and its accelerator can give, as one of its models.

    Raises:
        VirtError: VIR_ERR_CONFIG_UNSUPPORTED, the emulator did not say.
    """
    found = find_host_model(binary)
    if found is None:
        text = f"{binary.path} does not say which CPU it can give a guest"
        raise VirtError(c.VIR_ERR_CONFIG_UNSUPPORTED, text, domain=c.VIR_FROM_QEMU)
    return found


def find_host_model(binary: Binary) -> CpuDefinition | None:
    """As host_model(); None if the emulator did not say what it can give, or no model describes it."""
    widest = binary.widest_cpu
    if not widest:
        return None
    features = x86map.from_qemu(name for name, value in widest.items() if value is True)
    names = {name: vendor for vendor, name in x86map.VENDORS.items()}
    vendor = names.get(str(widest.get("vendor")))
    try:
        found = x86.decode(features, vendor=vendor, signature=_signature(widest), blockers=blockers(binary))
    except VirtError:
        return None
    return x86.definition(found, arch=None, vendor=found.vendor, fallback="forbid")


def _signature(widest: Mapping[str, object]) -> x86.Signature | None:
    family, model, stepping = (widest.get(name) for name in ("family", "model", "stepping"))
    if isinstance(family, int) and isinstance(model, int) and isinstance(stepping, int):
        return x86.Signature(family, model, stepping)
    return None
