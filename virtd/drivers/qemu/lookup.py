"""Finding guests, and what is known of them without asking anybody: lists, look-ups, state, XML.

A driver by itself, for programs of a moment that ask no more than that (virtd.drivers.open_connection): what only some
of its calls need, they import themselves.
"""

import time
from collections.abc import Iterable
from operator import attrgetter

from virtd import constants as c
from virtd.drivers.qemu.driverbase import DriverBase
from virtd.drivers.qemu.guest import vcpu_count
from virtd.drivers.qemu.guests import Entry
from virtd.errors import unsupported_flags
from virtd.protocol.records import Domain
from virtd.state import files

_CPUCLOCK_SCHED = 2  # <linux/posix-timers.h>

# virConnectListAllDomains: groups of flags, of which a guest must meet one in each group that is asked for at all.
_FILTERS = (
    (c.VIR_CONNECT_LIST_DOMAINS_ACTIVE, c.VIR_CONNECT_LIST_DOMAINS_INACTIVE),
    (c.VIR_CONNECT_LIST_DOMAINS_PERSISTENT, c.VIR_CONNECT_LIST_DOMAINS_TRANSIENT),
    (
        c.VIR_CONNECT_LIST_DOMAINS_RUNNING,
        c.VIR_CONNECT_LIST_DOMAINS_PAUSED,
        c.VIR_CONNECT_LIST_DOMAINS_SHUTOFF,
        c.VIR_CONNECT_LIST_DOMAINS_OTHER,
    ),
    (c.VIR_CONNECT_LIST_DOMAINS_MANAGEDSAVE, c.VIR_CONNECT_LIST_DOMAINS_NO_MANAGEDSAVE),
    (c.VIR_CONNECT_LIST_DOMAINS_AUTOSTART, c.VIR_CONNECT_LIST_DOMAINS_NO_AUTOSTART),
    (c.VIR_CONNECT_LIST_DOMAINS_HAS_SNAPSHOT, c.VIR_CONNECT_LIST_DOMAINS_NO_SNAPSHOT),
    (c.VIR_CONNECT_LIST_DOMAINS_HAS_CHECKPOINT, c.VIR_CONNECT_LIST_DOMAINS_NO_CHECKPOINT),
)
_REFERENCE = attrgetter("reference")
_ALL_FILTERS = sum(flag for group in _FILTERS for flag in group)
_STATE_FLAGS = {
    c.VIR_DOMAIN_RUNNING: c.VIR_CONNECT_LIST_DOMAINS_RUNNING,
    c.VIR_DOMAIN_PAUSED: c.VIR_CONNECT_LIST_DOMAINS_PAUSED,
    c.VIR_DOMAIN_SHUTOFF: c.VIR_CONNECT_LIST_DOMAINS_SHUTOFF,
}


class Lookup(DriverBase):
    """Lists and look-ups of guests, and their plain properties."""

    LISTS = frozenset({"connect_list_domains", "connect_list_defined_domains", "connect_list_all_domains"})

    def basis(self) -> object:
        return self.guests.view()

    def connect_list_domains(self, most: int) -> list[int]:
        """virConnectListDomains: the ids of running guests."""
        return sorted(self.guests.view().by_id)[:most]

    def connect_num_of_domains(self) -> int:
        """virConnectNumOfDomains."""
        return len(self.guests.view().by_id)

    def connect_list_defined_domains(self, most: int) -> list[str]:
        """virConnectListDefinedDomains: the names of guests that are defined and do not run."""
        return [entry.name for entry in self.guests.view() if not entry.active][:most]

    def connect_num_of_defined_domains(self) -> int:
        """virConnectNumOfDefinedDomains."""
        return sum(not entry.active for entry in self.guests.view())

    def connect_list_all_domains(self, need_results: int, flags: int) -> tuple[list[Domain], int]:
        """virConnectListAllDomains."""
        unsupported_flags(flags, _ALL_FILTERS, "qemuConnectListAllDomains")
        entries: Iterable[Entry] = self.guests.view()
        if flags:
            groups = [mask for mask in (sum(group) & flags for group in _FILTERS) if mask]
            entries = [entry for entry in entries if all(self._filter_flags(entry) & mask for mask in groups)]
        found = list(map(_REFERENCE, entries))
        return found if need_results else [], len(found)

    def _filter_flags(self, entry: Entry) -> int:
        """The flags of virConnectListAllDomains that a guest meets."""
        state, _ = self.guests.last_state(entry)
        return (
            (c.VIR_CONNECT_LIST_DOMAINS_ACTIVE if entry.active else c.VIR_CONNECT_LIST_DOMAINS_INACTIVE)
            | (c.VIR_CONNECT_LIST_DOMAINS_PERSISTENT if entry.persistent else c.VIR_CONNECT_LIST_DOMAINS_TRANSIENT)
            | _STATE_FLAGS.get(state, c.VIR_CONNECT_LIST_DOMAINS_OTHER)
            | (c.VIR_CONNECT_LIST_DOMAINS_AUTOSTART if entry.autostart else c.VIR_CONNECT_LIST_DOMAINS_NO_AUTOSTART)
            # No guest has these yet: the calls that would make them are not supported.
            | c.VIR_CONNECT_LIST_DOMAINS_NO_MANAGEDSAVE
            | c.VIR_CONNECT_LIST_DOMAINS_NO_SNAPSHOT
            | c.VIR_CONNECT_LIST_DOMAINS_NO_CHECKPOINT
        )

    def domain_lookup_by_id(self, number: int) -> Domain:
        """virDomainLookupByID."""
        entry = self.guests.view().by_id.get(number)
        if entry is None:
            raise self.guests.kind.error(f"id {number}")
        return entry.reference

    def domain_lookup_by_uuid(self, uuid: bytes) -> Domain:
        """virDomainLookupByUUID."""
        return self.guests.find_uuid(uuid).reference

    def domain_lookup_by_name(self, name: str) -> Domain:
        """virDomainLookupByName."""
        return self.guests.find_name(name).reference

    def domain_is_active(self, domain: Domain) -> int:
        """virDomainIsActive."""
        return int(self.guests.find(domain).active)

    def domain_is_persistent(self, domain: Domain) -> int:
        """virDomainIsPersistent."""
        return int(self.guests.find(domain).persistent)

    def domain_is_updated(self, domain: Domain) -> int:
        """virDomainIsUpdated: whether the definition has changed since the guest was started."""
        self.guests.find(domain)
        return 0  # as libvirt's QEMU driver answers, which never sets the mark

    def domain_get_os_type(self, domain: Domain) -> str:
        """virDomainGetOSType."""
        return self.current(self.guests.find(domain)).os.type or "hvm"

    def domain_get_info(self, domain: Domain) -> tuple[int, int, int, int, int]:
        """virDomainGetInfo: state, memory limit and memory in KiB, vCPUs, CPU time in ns."""
        entry = self.guests.find(domain)
        state, _ = self.guests.last_state(entry)
        status = entry.status
        if status is None:
            from virtd.drivers.qemu.stats import facts

            sizes = facts.sizes(self.guests.definitions.path(entry.name))
            if sizes is None:  # edited by hand
                config = self.config(entry)
                sizes = config.memory or 0, config.current_memory or 0, vcpu_count(config)
            return state, *sizes, 0
        cpu_time = 0 if status.process is None else _cpu_time(status.process.pid)
        return state, status.max_memory, status.memory, status.vcpus, cpu_time

    def domain_get_state(self, domain: Domain, flags: int) -> tuple[int, int]:
        """virDomainGetState: state and reason."""
        unsupported_flags(flags, 0, "qemuDomainGetState")
        return self.guests.last_state(self.guests.find(domain))

    def domain_get_control_info(self, domain: Domain, flags: int) -> tuple[int, int, int]:
        """virDomainGetControlInfo: whether the guest's monitor is in use, and for how many ms."""
        unsupported_flags(flags, 0, "qemuDomainGetControlInfo")
        entry, _ = self.running(domain)
        age = self.guest(entry).busy()
        return (c.VIR_DOMAIN_CONTROL_OK, 0, 0) if age is None else (c.VIR_DOMAIN_CONTROL_JOB, 0, int(age * 1000))

    def domain_get_max_memory(self, domain: Domain) -> int:
        """virDomainGetMaxMemory, in KiB."""
        return self.current(self.guests.find(domain)).memory or 0

    def domain_get_max_vcpus(self, domain: Domain) -> int:
        """virDomainGetMaxVcpus."""
        entry, _ = self.running(domain)
        return self.live(entry).vcpu or 1

    def domain_get_autostart(self, domain: Domain) -> int:
        """virDomainGetAutostart."""
        return int(self.guests.find(domain).autostart)

    def domain_get_xml_desc(self, domain: Domain, flags: int) -> str:
        """virDomainGetXMLDesc."""
        unsupported_flags(
            flags,
            c.VIR_DOMAIN_XML_SECURE
            | c.VIR_DOMAIN_XML_INACTIVE
            | c.VIR_DOMAIN_XML_UPDATE_CPU
            | c.VIR_DOMAIN_XML_MIGRATABLE,
            "qemuDomainGetXMLDesc",
        )
        from virtd.conf.domain import format_domain
        from virtd.drivers.qemu import stored
        from virtd.drivers.qemu.run import guestcpu

        entry = self.guests.find(domain)
        whole = entry.status is not None and entry.status.as_written
        if whole and not flags & ~c.VIR_DOMAIN_XML_SECURE:
            text = self.guest(entry).live_text(secure=bool(flags))
            if text is not None:
                return text
        inactive = bool(flags & c.VIR_DOMAIN_XML_INACTIVE) or not entry.active
        if inactive and entry.persistent and not flags & ~(c.VIR_DOMAIN_XML_INACTIVE | c.VIR_DOMAIN_XML_SECURE):
            content = files.read(self.guests.definitions.path(entry.name))
            written = None if content is None else stored.untouched(content)
            public = written is not None and (written[1] or bool(flags & c.VIR_DOMAIN_XML_SECURE))
            if written is not None and public and stored.is_called(written[0], entry.name):
                return written[0].decode(errors="surrogateescape")
        config = self.config(entry) if inactive and entry.persistent else self.current(entry)
        # Another host starts the guest from it: without what was chosen here, with what it cannot find out.
        migratable = bool(flags & c.VIR_DOMAIN_XML_MIGRATABLE)
        if migratable and entry.active and not inactive:
            asked = guestcpu.read((files.read(self.guest(entry).cpu_path) or b"").decode())
            config = config.copy() if asked is not None else config
            config.cpu = asked or config.cpu
        return format_domain(
            config,
            live=not (inactive or migratable),
            secure=migratable or bool(flags & c.VIR_DOMAIN_XML_SECURE),
            migratable=migratable,
        )


def _cpu_time(pid: int) -> int:
    """CPU time of a process and all its threads in ns, 0 if there is none: the clock that clock_getcpuclockid(3) names.

    It is the sum of fields 14 and 15 of /proc/PID/stat (proc(5)), in a twentieth of the time.
    """
    try:
        return time.clock_gettime_ns(~pid << 3 | _CPUCLOCK_SCHED)
    except OSError:
        return 0
