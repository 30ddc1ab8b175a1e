"""What virsh calls the states of things, and the reasons for them. The index is libvirt's number."""

# virDomainState
DOMAIN = ("no state", "running", "idle", "paused", "in shutdown", "shut off", "crashed", "pmsuspended")

# virDomain*Reason, by state
DOMAIN_REASONS = (
    ("unknown",),
    (
        "unknown",
        "booted",
        "migrated",
        "restored",
        "from snapshot",
        "unpaused",
        "migration canceled",
        "save canceled",
        "event wakeup",
        "crashed",
        "post-copy",
        "post-copy failed",
    ),
    ("unknown",),
    (
        "unknown",
        "user",
        "migrating",
        "saving",
        "dumping",
        "I/O error",
        "watchdog",
        "from snapshot",
        "shutting down",
        "creating snapshot",
        "crashed",
        "starting up",
        "post-copy",
        "post-copy failed",
        "api error",
    ),
    ("unknown", "user"),
    (
        "unknown",
        "shutdown",
        "destroyed",
        "crashed",
        "migrated",
        "saved",
        "failed",
        "from snapshot",
        "daemon",
    ),
    ("unknown", "panicked"),
    ("unknown",),
)

# virDomainControlState, and virDomainControlErrorReason
CONTROL = ("ok", "background job", "occupied", "error")
CONTROL_REASONS = ("", "unknown", "monitor failure", "internal (locking) error")

# virVcpuState
VCPU = ("offline", "running", "blocked")

# virStoragePoolState
POOL = ("inactive", "building", "running", "degraded", "inaccessible")

# virStorageVolType
VOLUME = ("file", "block", "dir", "network", "netdir", "ploop")

# virSecretUsageType
SECRET_USAGE = ("none", "volume", "ceph", "iscsi", "tls", "vtpm")

# virDomainDiskErrorCode
DISK_ERROR = ("no error", "unspecified error", "no space")


def of(names: tuple[str, ...], number: int, other: str = "unknown") -> str:
    """The name of a number; `other` for one that is newer than the table."""
    return names[number] if 0 <= number < len(names) else other


def domain(number: int) -> str:
    """What a guest's state is called."""
    return of(DOMAIN, number, "no state")


def domain_reason(state: int, reason: int) -> str:
    """What the reason for a guest's state is called."""
    return of(DOMAIN_REASONS[state], reason) if 0 <= state < len(DOMAIN_REASONS) else "unknown"
