"""The XML of a CPU by itself, as hosts report theirs and as clients ask about one.

A host's CPU names its architecture and simply has its features; a guest's has modes and policies (see
virtd.conf.domain.cpu). Which of the two a document is, the element <arch> tells.
"""

from dataclasses import dataclass, field

from virtd import constants as c
from virtd.conf.domain import basics
from virtd.conf.domain.cpu import Cpu, CpuFeature, cpu_error
from virtd.conf.xml.document import parse_document
from virtd.conf.xml.model import Element, View, local_name, write_document
from virtd.errors import VirtError


@dataclass
class CpuDefinition:
    """A CPU, as far as models are computed with it."""

    arch: str | None = None  # as written; None for that of the host
    guest: bool = False
    model: str | None = None  # None for a guest's CPU that names none
    fallback: str | None = None
    vendor: str | None = None
    strict: bool = False  # a guest that must not see more than it asks for
    policies: dict[str, str] = field(default_factory=dict)  # by name of the feature


def parse_root(xml: str) -> Element:
    """The element of a document.

    Raises:
        VirtError: with libvirt's code for what is wrong.
    """
    root = parse_document(xml, "CPU_definition", domain=c.VIR_FROM_CPU)
    if local_name(root) != "cpu":
        raise cpu_error("XML does not contain expected 'cpu' element")
    return root


def parse_cpu(xml: str, *, host: bool) -> CpuDefinition:
    """Read a document.

    Args:
        xml: the document; its root is <cpu>.
        host: it must be a host's CPU; otherwise it may be either.

    Raises:
        VirtError: with libvirt's code for what is wrong.
    """
    root = parse_root(xml)
    arch = root.findtext("arch")
    guest = not host and root.find("arch") is None
    if not guest:
        if root.get("mode") is not None:
            raise cpu_error("Attribute mode is only allowed for guest CPU", c.VIR_ERR_CONFIG_UNSUPPORTED)
        if arch is None:
            raise cpu_error("Missing CPU architecture")
        if arch not in basics.ARCHES:
            raise cpu_error(f"Unknown architecture {arch}", c.VIR_ERR_CONFIG_UNSUPPORTED)
        if root.find("model") is None:
            raise cpu_error("Missing CPU model name")
        # A host has its features: whatever else is said of them is a guest's.
        for el in root.iter("feature"):
            el.attrib.pop("policy", "")
        root.attrib.pop("match", "")
    try:
        cpu = Cpu.read(root, View())
    except VirtError as error:
        if error.domain in (c.VIR_FROM_NONE, c.VIR_FROM_DOMAIN):
            error.domain = c.VIR_FROM_CPU
        raise
    found = of_guest(cpu)
    # A domain's CPU has no model of its own in some modes; one that is asked about keeps what it names.
    found.model = found.model or root.findtext("model") or None
    found.arch, found.guest = arch, guest
    return found


def of_guest(cpu: Cpu) -> CpuDefinition:
    """A guest's CPU, as it stands in the XML of a domain."""
    return CpuDefinition(
        guest=True,
        model=cpu.model,
        vendor=cpu.vendor,
        strict=cpu.match == "strict",
        policies={feature.name or "": feature.policy or "require" for feature in cpu.features},
    )


def set_policies(cpu: Cpu, policies: dict[str, str]) -> None:
    """Write the features of a guest's CPU."""
    cpu.features = [CpuFeature(name=name, policy=policy) for name, policy in policies.items()]


def format_cpu(cpu: CpuDefinition) -> str:
    """A guest's CPU as a document."""
    shown = Cpu(mode="custom", match="exact", model=cpu.model, model_fallback=cpu.fallback, vendor=cpu.vendor)
    set_policies(shown, cpu.policies)
    return write_document(shown, "cpu", View())
