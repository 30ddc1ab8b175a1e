"""The arithmetic of x86 CPU models: which model describes a set of features best, what CPUs have in common, whether one
can do what another one needs.

The choice of a model is libvirt's, to the feature: guests keep the model that they were started with, so two answers
to the same question must never differ. This module knows no XML text, no host and no emulator.
"""

from collections.abc import Collection, Mapping
from typing import NamedTuple

from virtd import constants as c
from virtd.conf.cpu import x86map
from virtd.conf.cpu.document import CpuDefinition
from virtd.conf.cpu.x86map import Model
from virtd.errors import VirtError

ARCHES = ("x86_64", "i686")
_WANTED = ("force", "require")
# The model of a CPU that is made from the host's.
_NOTHING = Model("", None, (), for_hosts=False, for_guests=False, features=0, dropped=0)


class Signature(NamedTuple):
    """Which processor it is (CPUID leaf 1)."""

    family: int
    model: int
    stepping: int


class Decoded(NamedTuple):
    """A model with what is added to it and taken from it."""

    model: str
    vendor: str | None
    required: int  # sets of features, as in x86map
    disabled: int
    absent: int  # what QEMU no longer has in the model: disabled as well


def decode(
    features: int,
    *,
    vendor: str | None,
    signature: Signature | None = None,
    guest: bool = True,
    blockers: Mapping[str, int] | None = None,
    inputs: Collection[str] = (),
    preferred: str | None = None,
) -> Decoded:
    """Describe a set of features by the model that fits best.

    Args:
        features: the set.
        vendor: whose processor it is; None leaves models of all vendors.
        signature: which processor it is, if known: a model of that very processor comes first.
        guest: a guest's CPU, from whose model features may be taken; a host's has all that its model has.
        blockers: the models that the emulator knows, and which features of each it cannot give; None: all models.
        inputs: models that are taken for having fewer features too many, whatever has to be added to them.
        preferred: the model that is taken in any case, if it can be.

    Raises:
        VirtError: VIR_ERR_INTERNAL_ERROR, no model fits.
    """
    hidden = x86map.host_only() if guest else 0
    if blockers is not None:
        hidden |= x86map.without_name_in_qemu()
    best: _Candidate | None = None
    for model in reversed(x86map.models().values()):
        if not (model.for_guests if guest else model.for_hosts):
            continue
        if (blockers is not None and model.name not in blockers) or (vendor and model.vendor not in (None, vendor)):
            continue
        blocked = (blockers or {}).get(model.name, 0)
        required = features & ~model.features & ~hidden
        missing = model.features & ~features | blocked & ~required
        candidate = _Candidate(model, required, missing, model.dropped & ~features & ~missing)
        if candidate.lacking and not guest:
            continue
        if model.name == preferred:
            best = candidate
            break
        if best is None or _better(candidate, best, signature, inputs):
            best = candidate
    if best is None:
        raise _error(c.VIR_ERR_INTERNAL_ERROR, "Cannot find suitable CPU model for given data")
    return Decoded(best.model.name, vendor, best.required, best.disabled, best.absent)


class _Candidate(NamedTuple):
    """A model that might describe a set of features, and what of them it has not or has too many."""

    model: Model
    required: int
    disabled: int
    absent: int

    @property
    def lacking(self) -> int:
        """How many features are taken from the model."""
        return (self.disabled | self.absent).bit_count()

    @property
    def penalty(self) -> int:
        """What the features weigh that are taken away: each second one more than the one before it, as guests look at
        the model and use what they expect in it.
        """
        steps = (self.lacking + 1) // 2
        return steps * (steps + 1) // 2

    @property
    def cost(self) -> tuple[int, int]:
        """How far the description is from the bare model."""
        return self.required.bit_count() + self.lacking + self.penalty, self.penalty


def _better(candidate: _Candidate, best: _Candidate, signature: Signature | None, inputs: Collection[str]) -> bool:
    """Whether a candidate describes the features better than the best so far."""
    fits, fitted = _is(candidate.model, signature), _is(best.model, signature)
    if fitted and not fits:
        return False
    richer = candidate.model.name in inputs and candidate.penalty < best.penalty
    return richer or candidate.cost < best.cost or (fits and not fitted)


def _is(model: Model, signature: Signature | None) -> bool:
    return signature is not None and any(
        (one.family, one.model) == signature[:2] and (one.steppings is None or signature.stepping in one.steppings)
        for one in model.signatures
    )


def baseline(
    cpus: list[CpuDefinition], *, blockers: Mapping[str, int] | None = None, migratable: bool = False
) -> CpuDefinition:
    """The CPU with all that several CPUs have in common (virConnectBaselineCPU).

    Args:
        cpus: at least one; each has a model.
        blockers: as for decode().
        migratable: leave out what binds a guest to its host.

    Raises:
        VirtError: VIR_ERR_OPERATION_FAILED, there is nothing in common; VIR_ERR_INTERNAL_ERROR, a model or a feature
            is unknown.
    """
    features = everything(cpus[0])
    vendor = cpus[0].vendor
    if vendor is not None and vendor not in x86map.VENDORS:
        raise _error(c.VIR_ERR_OPERATION_FAILED, f"Unknown CPU vendor {vendor}")
    shown = vendor is not None
    for cpu in cpus[1:]:
        features &= everything(cpu)
        own = _model(cpu).vendor
        if cpu.vendor is not None and own is not None and cpu.vendor != own:
            text = f"CPU vendor {own} of model {cpu.model} differs from vendor {cpu.vendor}"
            raise _error(c.VIR_ERR_OPERATION_FAILED, text)
        shown = shown and cpu.vendor is not None
        name = cpu.vendor or own
        if name is not None and vendor is None:
            if name not in x86map.VENDORS:
                raise _error(c.VIR_ERR_OPERATION_FAILED, f"Unknown CPU vendor {name}")
            vendor = name
        elif name is not None and name != vendor:
            raise _error(c.VIR_ERR_OPERATION_FAILED, "CPU vendors do not match")
    if not features:
        raise _error(c.VIR_ERR_OPERATION_FAILED, "CPUs are incompatible")
    inputs = {cpu.model or "" for cpu in cpus}
    only = cpus[0].model if len(inputs) == 1 else None
    found = decode(features, vendor=vendor, blockers=blockers, inputs=inputs, preferred=only)
    # An emulator is asked about its own CPUs: what it can give, it can take along.
    bound = x86map.unmigratable() if migratable and blockers is None else 0
    return definition(
        found._replace(required=found.required & ~bound),
        arch=cpus[0].arch,
        vendor=found.vendor if shown else None,
        fallback="forbid" if found.model == only or blockers is not None else "allow",
    )


def definition(found: Decoded, *, arch: str | None, vendor: str | None, fallback: str) -> CpuDefinition:
    """A description as it stands in XML."""
    policies = dict.fromkeys(x86map.names(found.required), "require")
    policies |= dict.fromkeys(x86map.names(found.disabled) + x86map.names(found.absent), "disable")
    return CpuDefinition(arch=arch, guest=True, model=found.model, fallback=fallback, vendor=vendor, policies=policies)


def expand(cpu: CpuDefinition) -> None:
    """Write out all features of a CPU's model, in order of their names (VIR_CONNECT_BASELINE_CPU_EXPAND_FEATURES)."""
    policies = dict.fromkeys(x86map.names(_model(cpu).features), "require") | cpu.policies
    cpu.policies = dict(sorted(policies.items()))


def mention_dropped(cpu: CpuDefinition) -> None:
    """Take away what QEMU once had in a CPU's model: a guest must not get it from one QEMU and lose it in another."""
    for name in x86map.names(_model(cpu).dropped):
        cpu.policies.setdefault(name, "disable")


def incompatibility(host: CpuDefinition, cpu: CpuDefinition) -> str | None:
    """Why a host's CPU cannot do what a CPU needs; None if it can.

    Raises:
        VirtError: VIR_ERR_INTERNAL_ERROR, a model or a feature is unknown.
    """
    if cpu.arch is not None and cpu.arch not in ARCHES:
        return f"CPU arch {cpu.arch} does not match host arch"
    if cpu.vendor is not None and cpu.vendor != host.vendor:
        return f"host CPU vendor does not match required CPU vendor {cpu.vendor}"
    has, needed = everything(host), _needed(cpu)
    forbidden = has & _with_policy(cpu, "forbid")
    if forbidden:
        return f"Host CPU provides forbidden features: {_listed(forbidden)}"
    if needed & ~has:
        return f"Host CPU does not provide required features: {_listed(needed & ~has)}"
    if cpu.strict and _beyond(host, cpu):
        return f"Host CPU does not strictly match guest CPU: Extra features: {_listed(_beyond(host, cpu))}"
    return None


def exceeds(host: CpuDefinition, cpu: CpuDefinition) -> bool:
    """Whether a host's CPU has more than a CPU that it is compatible with speaks of."""
    return bool(_beyond(host, cpu))


def _beyond(host: CpuDefinition, cpu: CpuDefinition) -> int:
    spoken = _needed(cpu) | _with_policy(cpu, "optional", "disable", "force")
    return everything(host) & ~spoken


def _needed(cpu: CpuDefinition) -> int:
    return (_model(cpu).features | _with_policy(cpu, "require")) & ~_with_policy(cpu, "disable")


def everything(cpu: CpuDefinition) -> int:
    """All features of a CPU.

    Raises:
        VirtError: VIR_ERR_INTERNAL_ERROR, its model or one of its features is unknown.
    """
    return (_model(cpu).features | _with_policy(cpu, *_WANTED)) & ~_with_policy(cpu, "disable", "forbid")


def _with_policy(cpu: CpuDefinition, *wanted: str) -> int:
    found = 0
    for name, policy in cpu.policies.items():
        if name not in x86map.bits():
            raise _error(c.VIR_ERR_INTERNAL_ERROR, f"Unknown CPU feature {name}")
        if policy in wanted:
            found |= x86map.bits()[name]
    return found


def _model(cpu: CpuDefinition) -> Model:
    if cpu.model is None:
        return _NOTHING
    found = x86map.models().get(cpu.model)
    if found is None:
        raise _error(c.VIR_ERR_INTERNAL_ERROR, f"Unknown CPU model {cpu.model}")
    return found


def _listed(features: int) -> str:
    return ", ".join(x86map.names(features))


def _error(code: int, text: str) -> VirtError:
    return VirtError(code, text, domain=c.VIR_FROM_CPU)
