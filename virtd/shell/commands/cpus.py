"""What CPUs there are to choose from, and what else a guest on this host can have."""

from __future__ import annotations

from virtd import constants as c
from virtd.errors import VirtError
from virtd.shell import xmltext
from virtd.shell.command import Args, Command
from virtd.shell.failure import Failure, failing
from virtd.shell.output import Lines, Output, Plain, Single
from virtd.shell.session import Session, read_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_BASELINE_FLAGS = {
    "features": c.VIR_CONNECT_BASELINE_CPU_EXPAND_FEATURES,
    "migratable": c.VIR_CONNECT_BASELINE_CPU_MIGRATABLE,
}
_COMPARE_FLAGS = {
    "error": c.VIR_CONNECT_COMPARE_CPU_FAIL_INCOMPATIBLE,
    "validate": c.VIR_CONNECT_COMPARE_CPU_VALIDATE_XML,
}
# The sentences for the values of virCPUCompareResult.
_HOST = {
    c.VIR_CPU_COMPARE_INCOMPATIBLE: ("incompatible", "CPU described in {file} is incompatible with host CPU"),
    c.VIR_CPU_COMPARE_IDENTICAL: ("identical", "CPU described in {file} is identical to host CPU"),
    c.VIR_CPU_COMPARE_SUPERSET: ("superset", "Host CPU is a superset of CPU described in {file}"),
}
_HYPERVISOR = {
    c.VIR_CPU_COMPARE_INCOMPATIBLE: (
        "incompatible",
        "CPU described in {file} is incompatible with the CPU provided by hypervisor on the host",
    ),
    c.VIR_CPU_COMPARE_IDENTICAL: (
        "identical",
        "CPU described in {file} is identical to the CPU provided by hypervisor on the host",
    ),
    c.VIR_CPU_COMPARE_SUPERSET: (
        "superset",
        "The CPU provided by hypervisor on the host is a superset of CPU described in {file}",
    ),
}


def cpu_models(session: Session, args: Args) -> Output:
    """virConnectGetCPUModelNames."""
    with failing("failed to get CPU model names"):
        models, count = session.call("connect_get_cpu_model_names", args.required("arch"), 1, 0)
    if count == 0:
        return Plain("models", "" if session.quiet else "all CPU models are accepted\n", [])
    return Lines(models)


def domcapabilities(session: Session, args: Args) -> Output:
    """virConnectGetDomainCapabilities."""
    with failing("failed to get emulator capabilities"):
        text = session.call("connect_get_domain_capabilities", *_emulator(args, "emulatorbin"), 0)
    return Plain("xml", f"{text}\n")


def _emulator(args: Args, name: str = "emulator") -> tuple[str | None, str | None, str | None, str | None]:
    """The arguments that say which emulator is meant."""
    return args.text(name), args.text("arch"), args.text("machine"), args.text("virttype")


def maxvcpus(session: Session, args: Args) -> Output:
    """virConnectGetDomainCapabilities, or virConnectGetMaxVcpus where that does not say."""
    kind = args.text("type")
    try:
        text = session.call("connect_get_domain_capabilities", None, None, None, kind, 0)
        most = xmltext.attribute(xmltext.parse(text), "vcpu", "max")
        if most:
            return Single("max_vcpus", int(most))
    except (VirtError, ValueError):
        pass  # the older call knows, or says why not
    return Single("max_vcpus", session.call("connect_get_max_vcpus", kind))


def _cpus(path: str) -> list[str]:
    """The CPU descriptions in a file: CPUs, guests, capabilities of hosts or of domains, any number of them."""
    text = read_text(path)
    if text.lstrip().startswith("<?xml"):
        text = text.partition("?>")[2]
    from lxml import etree

    try:
        root = xmltext.parse(f"<container>{text}</container>")
    except Failure:
        root = etree.Element("container")
    wanted = "/container/cpu|/container/domain/cpu|/container/capabilities/host/cpu"
    wanted += "|/container/domainCapabilities/cpu/mode[@name='host-model' and @supported='yes']"
    found: Any = root.xpath(wanted)
    if not found:
        what = "any <cpu> element or valid domain XML, host capabilities XML, or domain capabilities XML"
        raise Failure(f"File '{path}' does not contain {what}")
    for node in found:
        node.tail = None
        if node.tag == "mode":
            # What a hypervisor calls its host model is a CPU of the guest's kind.
            node.tag = "cpu"
            node.attrib.clear()
    return [etree.tostring(node, encoding="unicode") for node in found]


def baseline(session: Session, args: Args) -> Output:
    """virConnectBaselineCPU."""
    cpus = _cpus(args.required("file"))
    return Plain("xml", session.call("connect_baseline_cpu", cpus, args.flags(_BASELINE_FLAGS)))


def hypervisor_baseline(session: Session, args: Args) -> Output:
    """virConnectBaselineHypervisorCPU."""
    args.exclusive("file", "model")
    path, model = args.text("file"), args.text("model")
    if path is None and model is None:
        raise Failure("Either --file or --model must be provided")
    cpus = [f"<cpu><model>{xmltext.escape(model or '')}</model></cpu>"] if path is None else _cpus(path)
    flags = args.flags(_BASELINE_FLAGS)
    return Plain("xml", session.call("connect_baseline_hypervisor_cpu", *_emulator(args), cpus, flags))


def compare(session: Session, args: Args) -> Output:
    """virConnectCompareCPU."""
    path = args.required("file")
    cpu = _cpus(path)[0]
    with failing(f"Failed to compare host CPU with {path}"):
        result = session.call("connect_compare_cpu", cpu, args.flags(_COMPARE_FLAGS))
    return _verdict(_HOST, result, path)


def hypervisor_compare(session: Session, args: Args) -> Output:
    """virConnectCompareHypervisorCPU."""
    path = args.required("file")
    cpu = _cpus(path)[0]
    flags = args.flags(_COMPARE_FLAGS)
    with failing(f"Failed to compare hypervisor CPU with {path}"):
        result = session.call("connect_compare_hypervisor_cpu", *_emulator(args), cpu, flags)
    return _verdict(_HYPERVISOR, result, path)


def _verdict(sentences: dict[int, tuple[str, str]], result: int, path: str) -> Output:
    word, sentence = sentences.get(result, ("error", "Failed to compare host CPU with {file}"))
    found = Plain("result", sentence.format(file=path) + "\n", word)
    found.failed = result in (c.VIR_CPU_COMPARE_ERROR, c.VIR_CPU_COMPARE_INCOMPATIBLE)
    return found


_EMULATOR = "[--virttype <string>] [--emulator <string>] [--arch <string>] [--machine <string>]"

COMMANDS = (
    Command(
        "cpu-baseline",
        "<file> [--features] [--migratable]",
        "find the CPU that all CPUs of a file can be",
        baseline,
        kinds={"file": "path"},
    ),
    Command(
        "cpu-compare",
        "<file> [--error] [--validate]",
        "compare a CPU with the host's",
        compare,
        kinds={"file": "path"},
    ),
    Command("cpu-models", "<arch>", "show the CPU models of an architecture", cpu_models),
    Command(
        "domcapabilities",
        "[--virttype <string>] [--emulatorbin <string>] [--arch <string>] [--machine <string>]",
        "show what a guest can have here, as XML",
        domcapabilities,
        kinds={"emulatorbin": "path"},
    ),
    Command(
        "hypervisor-cpu-baseline",
        f"[--file <string>] {_EMULATOR} [--features] [--migratable] [--model <string>]",
        "find the CPU that a hypervisor can make of all CPUs of a file",
        hypervisor_baseline,
        kinds={"file": "path", "emulator": "path"},
    ),
    Command(
        "hypervisor-cpu-compare",
        f"<file> {_EMULATOR} [--error] [--validate]",
        "compare a CPU with what a hypervisor can offer",
        hypervisor_compare,
        kinds={"file": "path", "emulator": "path"},
    ),
    Command("maxvcpus", "[--type <string>]", "show how many virtual CPUs a guest may have", maxvcpus),
)
