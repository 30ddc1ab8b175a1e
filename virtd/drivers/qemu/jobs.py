"""Jobs of guests: what is known of the one that is under way, or was the last.

No call of this driver works as a job yet, so that there is none; what is said of that is libvirt's.
"""

from virtd import constants as c
from virtd.drivers.qemu import shape
from virtd.drivers.qemu.lifecycle import Lifecycle
from virtd.drivers.qemu.monitor import ask
from virtd.errors import VirtError, unsupported_flags
from virtd.protocol.records import Domain, TypedParam
from virtd.state import files

_NO_JOB = (c.VIR_DOMAIN_JOB_NONE, *[0] * 11)


class Jobs(Lifecycle):
    """virDomainGetJobInfo and its like."""

    def domain_get_job_info(self, domain: Domain) -> tuple[int, ...]:
        """virDomainGetJobInfo: type, and eleven amounts of time and data."""
        self.running(domain)
        return _NO_JOB

    def domain_get_job_stats(self, domain: Domain, flags: int) -> tuple[int, list[TypedParam]]:
        """virDomainGetJobStats."""
        completed, keep = c.VIR_DOMAIN_JOB_STATS_COMPLETED, c.VIR_DOMAIN_JOB_STATS_KEEP_COMPLETED
        if flags & keep and not flags & completed:
            function = "virDomainGetJobStats"
            text = "Flag 'VIR_DOMAIN_JOB_STATS_COMPLETED' is required by flag 'VIR_DOMAIN_JOB_STATS_KEEP_COMPLETED'"
            raise VirtError.invalid_argument(function, "ctl", text, domain=c.VIR_FROM_DOMAIN)
        unsupported_flags(flags, completed | keep, "qemuDomainGetJobStats")
        if flags & completed:
            self.guests.find(domain)
        else:
            self.running(domain)
        return c.VIR_DOMAIN_JOB_NONE, []

    def domain_abort_job(self, domain: Domain) -> None:
        """virDomainAbortJob."""
        self.domain_abort_job_flags(domain, 0)

    def domain_abort_job_flags(self, domain: Domain, flags: int) -> None:
        """virDomainAbortJobFlags."""
        unsupported_flags(flags, c.VIR_DOMAIN_ABORT_JOB_POSTCOPY, "qemuDomainAbortJobFlags")
        self.running(domain)
        text = "no job is active on the domain"
        if flags & c.VIR_DOMAIN_ABORT_JOB_POSTCOPY:
            text = "current job is not outgoing migration in post-copy mode"
        raise VirtError(c.VIR_ERR_OPERATION_INVALID, text)

    def domain_migrate_get_max_downtime(self, domain: Domain, flags: int) -> int:
        """virDomainMigrateGetMaxDowntime, in ms."""
        unsupported_flags(flags, 0, "qemuDomainMigrateGetMaxDowntime")
        entry, _ = self.running(domain)
        (answer,) = ask.ask(self.guest(entry), [("query-migrate-parameters", None)])
        return shape.number(shape.as_table(answer, "query-migrate-parameters"), "downtime-limit")

    def domain_start_dirty_rate_calc(self, domain: Domain, seconds: int, flags: int) -> None:
        """virDomainStartDirtyRateCalc: the result is told by virConnectGetAllDomainStats."""
        modes = {
            c.VIR_DOMAIN_DIRTYRATE_MODE_PAGE_SAMPLING: "page-sampling",
            c.VIR_DOMAIN_DIRTYRATE_MODE_DIRTY_BITMAP: "dirty-bitmap",
            c.VIR_DOMAIN_DIRTYRATE_MODE_DIRTY_RING: "dirty-ring",
        }
        names = [f"VIR_DOMAIN_DIRTYRATE_MODE_{name}" for name in ("PAGE_SAMPLING", "DIRTY_BITMAP", "DIRTY_RING")]
        self.one_of(flags, names, "virDomainStartDirtyRateCalc")
        unsupported_flags(flags, sum(modes), "qemuDomainStartDirtyRateCalc")
        if not 1 <= seconds <= 60:
            text = f"seconds={seconds} is invalid, please choose value within [1, 60]."
            raise VirtError(c.VIR_ERR_CONFIG_UNSUPPORTED, text)
        arguments: dict[str, object] = {"calc-time": seconds}
        if flags:
            arguments["mode"] = modes[flags]
        with self._changing(domain, "virDomainStartDirtyRateCalc") as (_, guest), guest.monitor() as monitor:
            files.replace(guest.dirty_rate_path, b"", durable=False)
            monitor.execute("calc-dirty-rate", arguments)
