"""Properties of guests beside their state: confinement, and what a guest has that no call of this driver can give it.

That a guest has no snapshot, checkpoint or saved image is the plain truth as long as nothing makes them; the calls
which would make them are not supported.
"""

import os

from virtd import constants as c
from virtd.drivers.qemu.driverbase import DriverBase
from virtd.errors import unsupported_flags
from virtd.protocol.records import Domain, SecurityLabel

# virDomainGetSchedulerType: the number of parameters there are with the control groups' CPU controller.
_SCHEDULER_PARAMETERS = 9
# What lists of snapshots and checkpoints can be limited to.
_SNAPSHOT_FILTERS = (
    c.VIR_DOMAIN_SNAPSHOT_LIST_ROOTS
    | c.VIR_DOMAIN_SNAPSHOT_LIST_TOPOLOGICAL
    | c.VIR_DOMAIN_SNAPSHOT_LIST_METADATA
    | c.VIR_DOMAIN_SNAPSHOT_LIST_NO_METADATA
    | c.VIR_DOMAIN_SNAPSHOT_LIST_LEAVES
    | c.VIR_DOMAIN_SNAPSHOT_LIST_NO_LEAVES
    | c.VIR_DOMAIN_SNAPSHOT_LIST_INACTIVE
    | c.VIR_DOMAIN_SNAPSHOT_LIST_ACTIVE
    | c.VIR_DOMAIN_SNAPSHOT_LIST_DISK_ONLY
    | c.VIR_DOMAIN_SNAPSHOT_LIST_INTERNAL
    | c.VIR_DOMAIN_SNAPSHOT_LIST_EXTERNAL
)
_CHECKPOINT_FILTERS = (
    c.VIR_DOMAIN_CHECKPOINT_LIST_ROOTS
    | c.VIR_DOMAIN_CHECKPOINT_LIST_TOPOLOGICAL
    | c.VIR_DOMAIN_CHECKPOINT_LIST_LEAVES
    | c.VIR_DOMAIN_CHECKPOINT_LIST_NO_LEAVES
)


class Properties(DriverBase):
    """Security labels, saved images, snapshots."""

    def domain_get_security_label(self, domain: Domain) -> tuple[bytes, int]:
        """virDomainGetSecurityLabel: of the first security model, which is none."""
        self.guests.find(domain)
        return b"\0", 0

    def domain_get_security_label_list(self, domain: Domain) -> tuple[list[SecurityLabel], int]:
        """virDomainGetSecurityLabelList: the first model, none, and the user and group that QEMU runs as (DAC)."""
        entry = self.guests.find(domain)
        if entry.status is None or entry.status.process is None:
            return [], 0
        try:
            owner = os.stat(f"/proc/{entry.status.process.pid}")
        except FileNotFoundError:
            return [], 0
        label = f"+{owner.st_uid}:+{owner.st_gid}\0".encode()
        return [SecurityLabel(b"\0", 0), SecurityLabel(label, 0)], 2

    def domain_get_scheduler_type(self, domain: Domain) -> tuple[str, int]:
        """virDomainGetSchedulerType."""
        self.guests.find(domain)
        return "posix", _SCHEDULER_PARAMETERS

    def domain_has_managed_save_image(self, domain: Domain, flags: int) -> int:
        """virDomainHasManagedSaveImage."""
        unsupported_flags(flags, 0, "qemuDomainHasManagedSaveImage")
        self.guests.find(domain)
        return 0

    def domain_has_current_snapshot(self, domain: Domain, flags: int) -> int:
        """virDomainHasCurrentSnapshot."""
        unsupported_flags(flags, 0, "qemuDomainHasCurrentSnapshot")
        self.guests.find(domain)
        return 0

    def domain_snapshot_num(self, domain: Domain, flags: int) -> int:
        """virDomainSnapshotNum."""
        unsupported_flags(flags, _SNAPSHOT_FILTERS, "qemuDomainSnapshotNum")
        self.guests.find(domain)
        return 0

    def domain_list_all_snapshots(self, domain: Domain, need_results: int, flags: int) -> tuple[list[object], int]:
        """virDomainListAllSnapshots."""
        unsupported_flags(flags, _SNAPSHOT_FILTERS, "qemuDomainListAllSnapshots")
        self.guests.find(domain)
        return [], 0

    def domain_list_all_checkpoints(self, domain: Domain, need_results: int, flags: int) -> tuple[list[object], int]:
        """virDomainListAllCheckpoints."""
        unsupported_flags(flags, _CHECKPOINT_FILTERS, "qemuDomainListAllCheckpoints")
        self.guests.find(domain)
        return [], 0
