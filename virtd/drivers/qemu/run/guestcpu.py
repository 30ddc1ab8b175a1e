"""The CPU that a guest sees, asked of QEMU once it has been made: not always the one that was asked for."""

from virtd import constants as c
from virtd.conf.cpu import x86, x86map
from virtd.conf.cpu.document import of_guest, set_policies
from virtd.conf.domain import Domain as Config
from virtd.conf.domain.cpu import Cpu
from virtd.conf.xml.document import parse_document
from virtd.conf.xml.model import View, write_document
from virtd.drivers.qemu import shape
from virtd.drivers.qemu.monitor.client import Monitor
from virtd.errors import VirtError

_ON = ("force", "require")


def observe(cpu: Cpu, monitor: Monitor) -> Cpu | None:
    """Write down which features the guest really sees.

    QMP commands: query-cpus-fast; qom-get of 'feature-words', which are the registers of CPUID, of 'filtered-features',
    what of the model is missing, and of the features that stand in MSRs.

    Args:
        cpu: the CPU as it was settled, which is changed.
        monitor: the guest's.

    Returns:
        The CPU as it was asked for, if that is another one.

    Raises:
        VirtError: VIR_ERR_OPERATION_FAILED, it is not what was asked for, and that was to be checked;
            VIR_ERR_CONFIG_UNSUPPORTED, a feature is missing without which nothing of the clock would be right.
    """
    if cpu.mode not in (None, "custom") or cpu.model not in x86map.models():
        return None
    asked = cpu.copy()
    path = shape.text(monitor.query_list("query-cpus-fast")[0], "qom-path")
    model = x86map.models()[cpu.model].features
    policies = {feature.name or "": feature.policy or "require" for feature in cpu.features}
    msrs = x86map.names((model | x86map.feature_set(policies)) & x86map.of_msr())
    properties = ["feature-words", "filtered-features", *msrs]
    answers = monitor.execute_all([("qom-get", {"path": path, "property": name}) for name in properties])
    enabled, filtered = (_features(answer) for answer in answers[:2])
    enabled |= x86map.feature_set(name for name, answer in zip(msrs, answers[2:], strict=True) if answer is True)
    if policies.get("invtsc") in _ON and not enabled & x86map.bits()["invtsc"]:
        text = "host doesn't support invariant TSC"
        raise VirtError(c.VIR_ERR_CONFIG_UNSUPPORTED, text, domain=c.VIR_FROM_QEMU)
    if cpu.check == "full":
        _check(enabled, x86.everything(of_guest(cpu)))
    said = x86map.feature_set(policies)
    for name, policy in policies.items():
        seen = bool(enabled & x86map.bits()[name])
        if seen != (policy in _ON):
            policies[name] = "require" if seen else "disable"
    missing = (model | filtered) & ~enabled
    for name in x86map.names((missing | enabled & ~model) & ~said):
        policies[name] = "require" if enabled & x86map.bits()[name] else "disable"
    set_policies(cpu, policies)
    cpu.check = "full"
    return asked if asked.features != cpu.features else None


def write(cpu: Cpu | None) -> str:
    """A CPU as text, to be kept; '' for none."""
    return "" if cpu is None else write_document(cpu, "cpu", View())


def read(text: str) -> Cpu | None:
    """What write() wrote."""
    return Cpu.read(parse_document(text, "cpu"), View()) if text else None


def _features(words: object) -> int:
    """The features in registers, as QEMU writes them."""
    registers = {}
    for word in shape.as_tables(words, "feature-words"):
        leaf, subleaf = shape.number(word, "cpuid-input-eax"), shape.number(word, "cpuid-input-ecx", 0)
        registers[leaf, subleaf, shape.text(word, "cpuid-register").lower()] = shape.number(word, "features")
    return x86map.from_registers(registers)


def _check(enabled: int, wanted: int) -> None:
    extra, missing = ",".join(x86map.names(enabled & ~wanted)), ",".join(x86map.names(wanted & ~enabled))
    if extra or missing:
        parts = [f"extra features: {extra}"] * bool(extra) + [f"missing features: {missing}"] * bool(missing)
        text = f"guest CPU doesn't match specification: {', '.join(parts)}"
        raise VirtError(c.VIR_ERR_OPERATION_FAILED, text, domain=c.VIR_FROM_CPU)


def plug(config: Config, monitor: Monitor) -> None:
    """Plug in the virtual CPUs that a guest begins with, and that can be taken away again, in their order.

    QMP: query-hotpluggable-cpus, device_add.

    Raises:
        VirtError: VIR_ERR_INTERNAL_ERROR, QEMU has no place for one.
    """
    wanted = [one for one in config.vcpus if one.enabled and one.hotpluggable]
    if not wanted:
        return
    where = places(monitor)
    for one in sorted(wanted, key=lambda one: (one.order or 0, one.id or 0)):
        number = one.id or 0
        if number >= len(where):
            raise VirtError(c.VIR_ERR_INTERNAL_ERROR, f"QEMU has no place for vcpu '{number}'", domain=c.VIR_FROM_QEMU)
        monitor.execute("device_add", {**where[number], "id": f"vcpu{number}"})


def places(monitor: Monitor) -> list[dict[str, object]]:
    """Where each virtual CPU sits, as arguments of device_add, in the order of their numbers."""
    keys = ("node-id", "socket-id", "die-id", "cluster-id", "core-id", "thread-id")
    found = [
        {"driver": shape.text(one, "type"), **shape.table(one, "props")}
        for one in monitor.query_list("query-hotpluggable-cpus")
    ]
    return sorted(found, key=lambda one: [int(str(one.get(key, 0))) for key in keys])
