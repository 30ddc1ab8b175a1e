"""<features> and <clock>: what the machine has besides devices, and how its time passes."""

import re

from virtd import constants as c
from virtd.conf.domain.errors import conf_error, internal_error, xml_error
from virtd.conf.xml.model import Element, Model, View, attr, flag, missing_attribute, sub, subs
from virtd.conf.xml.types import KIB, ON_OFF, UINT, UINT0, ULONG, YES_NO, Choice, Integer, PrettySize

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
        else:
            self.vendor_id = None
        if not self.spinlocks:
            self.spinlock_retries = None
        found = el.find("stimer")
        if found is None or not self.stimer:
            self.stimer_direct = None
            return
        for child in found.iterchildren("*"):
            if child.tag != "direct":
                raise conf_error(f"unsupported Hyper-V stimer feature: {child.tag}")
        need_states(found)
        self.stimer_direct = self.stimer_direct or None


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
        if not self.dirty_ring:
            self.dirty_ring_size = None
            return
        size = self.dirty_ring_size
        if size is None:
            found = el.find("dirty-ring")
            assert found is not None
            raise missing_attribute("size", found)
        if size & (size - 1) or not MIN_RING <= size <= MAX_RING:
            raise xml_error(f"dirty ring must be power of 2 and ranges [{MIN_RING}, {MAX_RING}]")


MIN_RING, MAX_RING = 1024, 65536
CAPABILITIES = (
    *("audit_control", "audit_write", "block_suspend", "chown", "dac_override", "dac_read_search", "fowner", "fsetid"),
    *("ipc_lock", "ipc_owner", "kill", "lease", "linux_immutable", "mac_admin", "mac_override", "mknod", "net_admin"),
    *("net_bind_service", "net_broadcast", "net_raw", "setgid", "setfcap", "setpcap", "setuid", "sys_admin"),
    *("sys_boot", "sys_chroot", "sys_module", "sys_nice", "sys_pacct", "sys_ptrace", "sys_rawio", "sys_resource"),
    *("sys_time", "sys_tty_config", "syslog", "wake_alarm"),
)


class Capabilities(Model):
    """What the processes of a container may do. A virtual machine may carry the words; they mean nothing to it."""

    policy = attr("@policy", Choice("default allow deny"))

    def loaded(self, el: Element, view: View) -> None:
        """Each capability that is named is allowed, unless it says otherwise."""
        refuse_unknown(self, el, "unexpected capability feature '%s'")
        for name in CAPABILITIES:
            if getattr(self, name) is None and el.find(name) is not None:
                setattr(self, name, True)
        if any(getattr(self, name) is not None for name in CAPABILITIES):
            self.policy = self.policy or "default"
        elif self.policy == "default":
            self.policy = None


for _name in CAPABILITIES:
    Capabilities.declare(_name, attr(f"{_name}/@state", ON_OFF))


class Xen(Model):
    """What Xen gives its guests; others may carry the words."""

    e820_host = attr("e820_host/@state", ON_OFF)
    passthrough = attr("passthrough/@state", ON_OFF)
    passthrough_mode = attr("passthrough/@mode", Choice("sync_pt share_pt"), when=lambda xen, view: xen.passthrough)

    def loaded(self, el: Element, view: View) -> None:
        """Refuse what libvirt does not know."""
        refuse_unknown(self, el, "unsupported Xen feature: %s")
        need_states(el)


class Hap(Model):
    """Hardware assisted paging; on if nothing else is said."""

    state = attr("@state", ON_OFF)


MITIGATIONS = Choice("broken workaround fixed")


class Features(Model):
    """What the machine has, or has not."""

    acpi = flag("acpi")
    apic = flag("apic")
    apic_eoi = attr("apic/@eoi", ON_OFF)
    pae = flag("pae")
    hap = sub("hap", Hap, keep=True)
    viridian = flag("viridian")
    privnet = flag("privnet")
    hyperv = sub("hyperv", Hyperv)
    kvm = sub("kvm", Kvm, keep=True)
    pvspinlock = attr("pvspinlock/@state", ON_OFF)
    capabilities = sub("capabilities", Capabilities)
    pmu = attr("pmu/@state", ON_OFF)
    vmport = attr("vmport/@state", ON_OFF)
    gic = flag("gic")
    gic_version = attr("gic/@version", Choice("2 3 host"))
    smm = attr("smm/@state", ON_OFF)
    smm_tseg = attr("smm/tseg", PrettySize("bytes", "MiB"), when=lambda features, view: features.smm)
    ioapic = attr("ioapic/@driver", Choice("qemu kvm"))
    hpt_resizing = attr("hpt/@resizing", Choice("enabled disabled required"))
    hpt_page_size = attr("hpt/maxpagesize", KIB, bad=(UNSUPPORTED, "Unable to parse HPT maxpagesize setting"))
    vmcoreinfo = attr("vmcoreinfo/@state", ON_OFF)
    htm = attr("htm/@state", ON_OFF)
    nested_hv = attr("nested-hv/@state", ON_OFF)
    msrs = attr("msrs/@unknown", Choice("ignore fault"))
    ccf_assist = attr("ccf-assist/@state", ON_OFF)
    xen = sub("xen", Xen, keep=True)
    cfpc = attr("cfpc/@value", MITIGATIONS)
    sbbc = attr("sbbc/@value", MITIGATIONS)
    ibs = attr("ibs/@value", Choice("broken workaround fixed-ibs fixed-ccd fixed-na"))
    tcg_tb_cache = attr("tcg/tb-cache", KIB)

    def loaded(self, el: Element, view: View) -> None:
        """A feature that is named is on; a name that libvirt does not know is refused."""
        refuse_unknown(self, el, "unexpected feature '%s'")
        for tag, attribute in MUST_SAY:
            found = el.find(tag)
            if found is not None and found.get(attribute) is None:
                raise missing_attribute(attribute, found)
        for name in STATES:
            if getattr(self, name) is None and el.find(name) is not None:
                setattr(self, name, True)
        if self.hap is not None and self.hap.state is None:
            self.hap.state = True


# Those that are on if nothing else is said, and those that must say what they are.
STATES = ("pvspinlock", "pmu", "vmport", "smm", "vmcoreinfo")
MUST_SAY = (("msrs", "unknown"), ("htm", "state"), ("nested-hv", "state"), ("ccf-assist", "state"))


class Catchup(Model):
    """How a timer catches up with the ticks it missed."""

    threshold = attr("@threshold", ULONG, omit=0)
    slew = attr("@slew", ULONG, omit=0)
    limit = attr("@limit", ULONG, omit=0)

    @property
    def given(self) -> bool:
        """Whether anything is said."""
        return bool(self.threshold or self.slew or self.limit)


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


class Start(Integer):
    """Seconds since the epoch; what is no such number counts as absent."""

    def parse(self, text: str) -> int:
        try:
            return super().parse(text)
        except ValueError:
            return -1


START = Start(0, (1 << 64) - 1)


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
    start = attr("@start", START)
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
            self.adjustment, self.basis = str(int(self.adjustment or "0")), self.basis or "utc"
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
        elif self.start is None or self.start < 0:
            raise internal_error("missing 'start' attribute for clock with offset='absolute'")


def refuse_unknown(model: Model, el: Element, text: str) -> None:
    """Refuse children that the model does not declare, where libvirt refuses them too.

    Raises:
        VirtError: VIR_ERR_CONFIG_UNSUPPORTED with `text`, %s being the child's name.
    """
    known = model.plan().by_tag
    for child in el.iterchildren("*"):
        if child.tag not in known:
            raise conf_error(text.replace("%s", str(child.tag)))
