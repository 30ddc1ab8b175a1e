"""<features> and <clock>: what the machine has besides devices, and how its time passes."""

import re

from virtd import constants as c
from virtd.conf.domain.errors import conf_error, internal_error, xml_error
from virtd.conf.xml.model import Element, Model, View, attr, flag, missing_attribute, sub, subs, unsupported
from virtd.conf.xml.types import LONG, ON_OFF, UINT, UINT0, ULONG, YES_NO, Choice, Size
from virtd.errors import VirtError

UNSUPPORTED = c.VIR_ERR_CONFIG_UNSUPPORTED


MIN_RETRIES = 4095
MAX_VENDOR = 12


def need_states(el: Element) -> None:
    """Each feature of a hypervisor says whether it is on.

    Raises:
        VirtError: VIR_ERR_XML_ERROR.
    """
    for child in el.iterchildren("*"):
        if child.get("state") is None:
            raise missing_attribute("state", child)


class Hyperv(Model):
    """Microsoft's paravirtual interfaces."""

    mode = attr("@mode", Choice("custom passthrough"))
    relaxed = attr("relaxed/@state", ON_OFF)
    vapic = attr("vapic/@state", ON_OFF)
    spinlocks = attr("spinlocks/@state", ON_OFF)
    spinlock_retries = attr("spinlocks/@retries", UINT0)
    vpindex = attr("vpindex/@state", ON_OFF)
    runtime = attr("runtime/@state", ON_OFF)
    synic = attr("synic/@state", ON_OFF)
    stimer = attr("stimer/@state", ON_OFF)
    stimer_direct = attr("stimer/direct/@state", ON_OFF)
    reset = attr("reset/@state", ON_OFF)
    vendor = attr("vendor_id/@state", ON_OFF)
    vendor_id = attr("vendor_id/@value")
    frequencies = attr("frequencies/@state", ON_OFF)
    reenlightenment = attr("reenlightenment/@state", ON_OFF)
    tlbflush = attr("tlbflush/@state", ON_OFF)
    ipi = attr("ipi/@state", ON_OFF)
    evmcs = attr("evmcs/@state", ON_OFF)
    avic = attr("avic/@state", ON_OFF)

    def loaded(self, el: Element, view: View) -> None:
        """Refuse what libvirt does not know."""
        refuse_unknown(self, el, "unsupported HyperV Enlightenment feature: %s")
        need_states(el)
        self.mode = self.mode or "custom"
        if self.spinlocks:
            if self.spinlock_retries is None:
                found = el.find("spinlocks")
                assert found is not None
                raise missing_attribute("retries", found)
            if self.spinlock_retries < MIN_RETRIES:
                raise xml_error(f"HyperV spinlock retry count must be at least {MIN_RETRIES}")
        if self.vendor:
            if self.vendor_id is None:
                raise xml_error("missing 'value' attribute for HyperV feature 'vendor_id'")
            if len(self.vendor_id) > MAX_VENDOR:
                raise xml_error(f"HyperV vendor_id value must not be more than {MAX_VENDOR} characters.")
            if "," in self.vendor_id:
                raise xml_error("HyperV vendor_id value is invalid")


class Kvm(Model):
    """KVM's own paravirtual interfaces."""

    hidden = attr("hidden/@state", ON_OFF)
    hint_dedicated = attr("hint-dedicated/@state", ON_OFF)
    poll_control = attr("poll-control/@state", ON_OFF)
    pv_ipi = attr("pv-ipi/@state", ON_OFF)
    dirty_ring = attr("dirty-ring/@state", ON_OFF)
    dirty_ring_size = attr("dirty-ring/@size", UINT)

    def loaded(self, el: Element, view: View) -> None:
        """Refuse what libvirt does not know."""
        refuse_unknown(self, el, "unsupported KVM feature: %s")
        need_states(el)


class Hap(Model):
    """Hardware assisted paging; on if nothing else is said."""

    state = attr("@state", ON_OFF)


class Features(
    Model,
):
    """What the machine has, or has not."""

    acpi = flag("acpi")
    apic = flag("apic")
    apic_eoi = attr("apic/@eoi", ON_OFF)
    pae = flag("pae")
    viridian = flag("viridian")
    privnet = flag("privnet")
    hap = sub("hap", Hap, keep=True)
    hyperv = sub("hyperv", Hyperv)
    kvm = sub("kvm", Kvm, keep=True)
    pvspinlock = attr("pvspinlock/@state", ON_OFF)
    pmu = attr("pmu/@state", ON_OFF)
    vmport = attr("vmport/@state", ON_OFF)
    smm = attr("smm/@state", ON_OFF)
    smm_tseg = attr("smm/tseg", Size("bytes", "MiB"))
    ioapic = attr("ioapic/@driver", Choice("qemu kvm"))
    vmcoreinfo = attr("vmcoreinfo/@state", ON_OFF)
    msrs = attr("msrs/@unknown", Choice("ignore fault"))
    xen_e820_host = attr("xen/e820_host/@state", ON_OFF)
    xen_passthrough = attr("xen/passthrough/@state", ON_OFF)
    xen_passthrough_mode = attr("xen/passthrough/@mode", Choice("sync_pt share_pt"))
    tcg_tb_cache = attr("tcg/tb-cache", Size("KiB", "KiB"))

    def loaded(self, el: Element, view: View) -> None:
        """A feature that is named is on; a name that libvirt does not know is refused."""
        for child in el.iterchildren("*"):
            if child.tag == "capabilities" and (len(child) or child.get("policy", "default") != "default"):
                raise unsupported("capabilities")
            if child.tag in OTHER_MACHINES:
                text = f"The '{child.tag}' feature is not supported for this architecture or machine type"
                raise VirtError(UNSUPPORTED, text, domain=c.VIR_FROM_QEMU)
        refuse_unknown(self, el, "unexpected feature '%s'")
        msrs = el.find("msrs")
        if msrs is not None and self.msrs is None:
            raise missing_attribute("unknown", msrs)
        for name in STATES:
            if getattr(self, name) is None and el.find(name) is not None:
                setattr(self, name, True)
        if self.hap is not None and self.hap.state is None:
            self.hap.state = True


OTHER_MACHINES = ("gic", "hpt", "htm", "nested-hv", "ccf-assist", "cfpc", "sbbc", "ibs")

# Those that are on if nothing else is said.
STATES = ("pvspinlock", "pmu", "vmport", "smm", "vmcoreinfo")


class Catchup(Model):
    """How a timer catches up with the ticks it missed."""

    threshold = attr("@threshold", ULONG)
    slew = attr("@slew", ULONG)
    limit = attr("@limit", ULONG)


class Timer(Model):
    """One of the machine's clocks."""

    name = attr("@name", Choice("platform pit rtc hpet tsc kvmclock hypervclock armvtimer"), required=True)
    present = attr("@present", YES_NO)
    tickpolicy = attr("@tickpolicy", Choice("delay catchup merge discard"))
    track = attr("@track", Choice("boot guest wall realtime"))
    frequency = attr("@frequency", ULONG, omit=0)
    mode = attr("@mode", Choice("auto native emulate paravirt smpsafe"))
    catchup = sub("catchup", Catchup)


LONG_ADJUSTMENT = re.compile(r"\s*[+-]?[0-9]{1,18}", re.ASCII)


class Clock(Model):
    """What time the guest's real time clock shows at start, and its timers."""

    offset = attr(
        "@offset",
        Choice("utc localtime variable timezone absolute"),
        default="utc",
        bad=(UNSUPPORTED, "unknown clock offset '%s'"),
    )
    adjustment = attr("@adjustment")
    basis = attr("@basis", Choice("utc localtime"), bad=(UNSUPPORTED, "unknown clock basis '%s'"))
    timezone = attr("@timezone")
    start = attr("@start", LONG)
    timers = subs("timer", Timer)

    def loaded(self, el: Element, view: View) -> None:
        """What each way of keeping time needs to know."""
        number = self.adjustment is None or LONG_ADJUSTMENT.fullmatch(self.adjustment) is not None
        if self.offset == "variable" and not number:
            self.adjustment = None
        elif self.offset in ("utc", "localtime") and not number and self.adjustment != "reset":
            raise xml_error(f"unknown clock adjustment '{self.adjustment}'")
        if self.offset in ("utc", "localtime") and self.adjustment not in (None, "reset"):
            self.basis, self.offset = self.offset, "variable"
        if self.offset == "variable":
            self.adjustment, self.basis = self.adjustment or "0", self.basis or "utc"
        else:
            self.basis = None
            if self.offset not in ("utc", "localtime"):
                self.adjustment = None
        if self.offset != "timezone":
            self.timezone = None
        elif self.timezone is None:
            raise internal_error("missing 'timezone' attribute for clock with offset='timezone'")
        if self.offset != "absolute":
            self.start = None
        elif self.start is None:
            raise internal_error("missing 'start' attribute for clock with offset='absolute'")


def refuse_unknown(model: Model, el: Element, text: str) -> None:
    """Refuse children that the model does not declare, where libvirt refuses them too.

    Raises:
        VirtError: VIR_ERR_CONFIG_UNSUPPORTED with `text`, %s being the child's name.
    """
    known = {*model.plan().by_tag, "capabilities"}
    for child in el.iterchildren("*"):
        if child.tag not in known:
            raise conf_error(text.replace("%s", child.tag))
