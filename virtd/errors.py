"""The one exception of virtd: everything that goes wrong and that a caller should hear of is a VirtError.

It is raised where the cause is known and turned into the wire's error in one place (the dispatcher).
A message says what happened, to which guest, who holds what, and what to do about it. Whoever catches a
VirtError may add to it, but never replaces the cause by something vaguer.
"""

from virtd import constants as c

# What libvirt says of each error: with ": detail" behind it, or (without a detail, around a detail).
TEXTS: dict[int, str | tuple[str, str]] = {
    c.VIR_ERR_INTERNAL_ERROR: "internal error",
    c.VIR_ERR_NO_MEMORY: "out of memory",
    c.VIR_ERR_NO_SUPPORT: "this function is not supported by the connection driver",
    c.VIR_ERR_UNKNOWN_HOST: ("unknown host", "unknown host %s"),
    c.VIR_ERR_NO_CONNECT: (
        "no connection driver available",
        "no connection driver available for %s",
    ),
    c.VIR_ERR_INVALID_CONN: ("invalid connection pointer in", "invalid connection pointer in %s"),
    c.VIR_ERR_INVALID_DOMAIN: ("invalid domain pointer in", "invalid domain pointer in %s"),
    c.VIR_ERR_INVALID_ARG: "invalid argument",
    c.VIR_ERR_OPERATION_FAILED: "operation failed",
    c.VIR_ERR_GET_FAILED: "GET operation failed",
    c.VIR_ERR_POST_FAILED: "POST operation failed",
    c.VIR_ERR_HTTP_ERROR: ("got unknown HTTP error code", "got unknown HTTP error code %s"),
    c.VIR_ERR_SEXPR_SERIAL: "failed to serialize S-Expr",
    c.VIR_ERR_NO_XEN: (
        "could not use Xen hypervisor entry",
        "could not use Xen hypervisor entry %s",
    ),
    c.VIR_ERR_XEN_CALL: ("failed Xen syscall", "failed Xen syscall %s"),
    c.VIR_ERR_OS_TYPE: ("unknown OS type", "unknown OS type %s"),
    c.VIR_ERR_NO_KERNEL: "missing kernel information",
    c.VIR_ERR_NO_ROOT: ("missing root device information", "missing root device information in %s"),
    c.VIR_ERR_NO_SOURCE: (
        "missing source information for device",
        "missing source information for device %s",
    ),
    c.VIR_ERR_NO_TARGET: (
        "missing target information for device",
        "missing target information for device %s",
    ),
    c.VIR_ERR_NO_NAME: ("missing name information", "missing name information in %s"),
    c.VIR_ERR_NO_OS: (
        "missing operating system information",
        "missing operating system information for %s",
    ),
    c.VIR_ERR_NO_DEVICE: ("missing devices information", "missing devices information for %s"),
    c.VIR_ERR_NO_XENSTORE: ("could not connect to Xen Store", "could not connect to Xen Store %s"),
    c.VIR_ERR_DRIVER_FULL: ("too many drivers registered", "too many drivers registered in %s"),
    c.VIR_ERR_CALL_FAILED: "library call failed",
    c.VIR_ERR_XML_ERROR: ("XML description is invalid or not well formed", "XML error: %s"),
    c.VIR_ERR_DOM_EXIST: ("this domain exists already", "domain %s exists already"),
    c.VIR_ERR_OPERATION_DENIED: (
        "operation forbidden for read only access",
        "operation forbidden: %s",
    ),
    c.VIR_ERR_OPEN_FAILED: (
        "failed to open configuration file",
        "failed to open configuration file %s",
    ),
    c.VIR_ERR_READ_FAILED: (
        "failed to read configuration file",
        "failed to read configuration file %s",
    ),
    c.VIR_ERR_PARSE_FAILED: (
        "failed to parse configuration file",
        "failed to parse configuration file %s",
    ),
    c.VIR_ERR_CONF_SYNTAX: "configuration file syntax error",
    c.VIR_ERR_WRITE_FAILED: "failed to write configuration file",
    c.VIR_ERR_XML_DETAIL: ("parser error", "%s"),
    c.VIR_ERR_INVALID_NETWORK: ("invalid network pointer in", "invalid network pointer in %s"),
    c.VIR_ERR_NETWORK_EXIST: ("this network exists already", "network %s exists already"),
    c.VIR_ERR_SYSTEM_ERROR: ("system call error", "%s"),
    c.VIR_ERR_RPC: ("RPC error", "%s"),
    c.VIR_ERR_GNUTLS_ERROR: ("GNUTLS call error", "%s"),
    c.VIR_WAR_NO_NETWORK: "Failed to find the network",
    c.VIR_ERR_NO_DOMAIN: "Domain not found",
    c.VIR_ERR_NO_NETWORK: "Network not found",
    c.VIR_ERR_INVALID_MAC: "invalid MAC address",
    c.VIR_ERR_AUTH_FAILED: "authentication failed",
    c.VIR_ERR_INVALID_STORAGE_POOL: (
        "invalid storage pool pointer in",
        "invalid storage pool pointer in %s",
    ),
    c.VIR_ERR_INVALID_STORAGE_VOL: (
        "invalid storage volume pointer in",
        "invalid storage volume pointer in %s",
    ),
    c.VIR_WAR_NO_STORAGE: "Failed to find a storage driver",
    c.VIR_ERR_NO_STORAGE_POOL: "Storage pool not found",
    c.VIR_ERR_NO_STORAGE_VOL: "Storage volume not found",
    c.VIR_WAR_NO_NODE: "Failed to find a node driver",
    c.VIR_ERR_INVALID_NODE_DEVICE: (
        "invalid node device pointer",
        "invalid node device pointer in %s",
    ),
    c.VIR_ERR_NO_NODE_DEVICE: "Node device not found",
    c.VIR_ERR_NO_SECURITY_MODEL: "Security model not found",
    c.VIR_ERR_OPERATION_INVALID: "Requested operation is not valid",
    c.VIR_WAR_NO_INTERFACE: "Failed to find the interface",
    c.VIR_ERR_NO_INTERFACE: "Interface not found",
    c.VIR_ERR_INVALID_INTERFACE: (
        "invalid interface pointer in",
        "invalid interface pointer in %s",
    ),
    c.VIR_ERR_MULTIPLE_INTERFACES: "multiple matching interfaces found",
    c.VIR_WAR_NO_NWFILTER: "Failed to start the nwfilter driver",
    c.VIR_ERR_INVALID_NWFILTER: "Invalid network filter",
    c.VIR_ERR_NO_NWFILTER: "Network filter not found",
    c.VIR_ERR_BUILD_FIREWALL: "Error while building firewall",
    c.VIR_WAR_NO_SECRET: "Failed to find a secret storage driver",
    c.VIR_ERR_INVALID_SECRET: "Invalid secret",
    c.VIR_ERR_NO_SECRET: "Secret not found",
    c.VIR_ERR_CONFIG_UNSUPPORTED: "unsupported configuration",
    c.VIR_ERR_OPERATION_TIMEOUT: "Timed out during operation",
    c.VIR_ERR_MIGRATE_PERSIST_FAILED: "Failed to make domain persistent after migration",
    c.VIR_ERR_HOOK_SCRIPT_FAILED: "Hook script execution failed",
    c.VIR_ERR_INVALID_DOMAIN_SNAPSHOT: "Invalid domain snapshot",
    c.VIR_ERR_NO_DOMAIN_SNAPSHOT: "Domain snapshot not found",
    c.VIR_ERR_INVALID_STREAM: ("invalid stream pointer", "invalid stream pointer in %s"),
    c.VIR_ERR_ARGUMENT_UNSUPPORTED: "argument unsupported",
    c.VIR_ERR_STORAGE_PROBE_FAILED: "Storage pool probe failed",
    c.VIR_ERR_STORAGE_POOL_BUILT: "Storage pool already built",
    c.VIR_ERR_SNAPSHOT_REVERT_RISKY: "revert requires force",
    c.VIR_ERR_OPERATION_ABORTED: "operation aborted",
    c.VIR_ERR_AUTH_CANCELLED: "authentication cancelled",
    c.VIR_ERR_NO_DOMAIN_METADATA: "metadata not found",
    c.VIR_ERR_MIGRATE_UNSAFE: "Unsafe migration",
    c.VIR_ERR_OVERFLOW: "numerical overflow",
    c.VIR_ERR_BLOCK_COPY_ACTIVE: "block copy still active",
    c.VIR_ERR_OPERATION_UNSUPPORTED: "Operation not supported",
    c.VIR_ERR_SSH: "SSH transport error",
    c.VIR_ERR_AGENT_UNRESPONSIVE: "Guest agent is not responding",
    c.VIR_ERR_RESOURCE_BUSY: "resource busy",
    c.VIR_ERR_ACCESS_DENIED: "access denied",
    c.VIR_ERR_DBUS_SERVICE: "error from service",
    c.VIR_ERR_STORAGE_VOL_EXIST: (
        "this storage volume exists already",
        "storage volume %s exists already",
    ),
    c.VIR_ERR_CPU_INCOMPATIBLE: "the CPU is incompatible with host CPU",
    c.VIR_ERR_XML_INVALID_SCHEMA: "XML document failed to validate against schema",
    c.VIR_ERR_MIGRATE_FINISH_OK: "migration successfully aborted",
    c.VIR_ERR_AUTH_UNAVAILABLE: "authentication unavailable",
    c.VIR_ERR_NO_SERVER: "Server not found",
    c.VIR_ERR_NO_CLIENT: "Client not found",
    c.VIR_ERR_AGENT_UNSYNCED: "guest agent replied with wrong id to guest-sync command",
    c.VIR_ERR_LIBSSH: "libssh transport error",
    c.VIR_ERR_DEVICE_MISSING: "device not found",
    c.VIR_ERR_INVALID_NWFILTER_BINDING: "Invalid network filter binding",
    c.VIR_ERR_NO_NWFILTER_BINDING: "Network filter binding not found",
    c.VIR_ERR_INVALID_DOMAIN_CHECKPOINT: "Invalid domain checkpoint",
    c.VIR_ERR_NO_DOMAIN_CHECKPOINT: "Domain checkpoint not found",
    c.VIR_ERR_NO_DOMAIN_BACKUP: "Domain backup job id not found",
    c.VIR_ERR_INVALID_NETWORK_PORT: "Invalid network port pointer",
    c.VIR_ERR_NETWORK_PORT_EXIST: (
        "this network port exists already",
        "network port %s exists already",
    ),
    c.VIR_ERR_NO_NETWORK_PORT: "network port not found",
    c.VIR_ERR_NO_HOSTNAME: "no hostname found",
    c.VIR_ERR_CHECKPOINT_INCONSISTENT: "checkpoint inconsistent",
    c.VIR_ERR_MULTIPLE_DOMAINS: "multiple matching domains found",
}


def generic_text(code: int, detail: str | None) -> str:
    """The text libvirt has for an error of this code; with a detail, the form that has a %s for it."""
    text = TEXTS.get(code, "unknown error")
    if isinstance(text, tuple):
        return text[detail is not None]
    return text if detail is None else f"{text}: %s"


class VirtError(Exception):
    """An error in libvirt's terms (virError).

    Args:
        code: what kind of error, a VIR_ERR_* constant.
        detail: what happened in this case; None for an error whose generic text says it all.
        domain: which part of the system it comes from, a VIR_FROM_* constant.
        level: VIR_ERR_ERROR, or VIR_ERR_WARNING.
    """

    code: int
    domain: int
    level: int
    message: str
    str1: str | None
    str2: str | None
    str3: str | None
    int1: int
    int2: int

    def __init__(
        self,
        code: int,
        detail: str | None = None,
        *,
        domain: int | None = None,
        level: int = c.VIR_ERR_ERROR,
    ) -> None:
        generic = generic_text(code, detail)
        self.code = code
        # Where it comes from: VIR_FROM_NONE from no part in particular, if that was said.
        self.domain = c.VIR_FROM_NONE if domain is None else domain
        self.placed = domain is not None
        self.level = level
        self.message = generic if detail is None else generic.replace("%s", detail, 1)
        self.str1, self.str2, self.str3 = generic, detail, None
        self.int1 = self.int2 = -1
        super().__init__(self.message)

    @classmethod
    def invalid_argument(cls, function: str, argument: str, text: str, *, domain: int | None = None) -> "VirtError":
        """An argument that a function does not take (VIR_ERR_INVALID_ARG), in the form libvirt has for that.

        Args:
            function: libvirt's name of the function.
            argument: the argument's name.
            text: the whole message.
            domain: a VIR_FROM_* constant.
        """
        error = cls(c.VIR_ERR_INVALID_ARG, domain=domain)
        error.message, error.str1, error.str2 = text, function, argument
        error.int1 = error.int2 = 0
        error.args = (text,)
        return error

    @property
    def detail(self) -> str:
        """What happened in this case, without the generic text before it."""
        return self.str2 if self.str2 is not None and self.message.endswith(self.str2) else self.message

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (self.__class__, self.__dict__)


def _rebuild(cls: type[VirtError], state: dict[str, object]) -> VirtError:
    """Unpickle an error: a child process hands its errors to the process that forked it."""
    error = cls.__new__(cls)
    error.__dict__.update(state)
    error.args = (error.message,)
    return error


def unsupported_flags(flags: int, supported: int, function: str, *, domain: int | None = None) -> None:
    """Refuse flags that a function does not know, as libvirt words it.

    Args:
        flags: what the caller passed.
        supported: all flags the function knows, joined by |.
        function: libvirt's name of the function, for the message.
        domain: a VIR_FROM_* constant; the driver's if it is left out.

    Raises:
        VirtError: VIR_ERR_INVALID_ARG naming the unknown bits.
    """
    unknown = flags & ~supported
    if unknown:
        text = f"unsupported flags (0x{unknown:x}) in function {function}"
        raise VirtError.invalid_argument(function, "flags", text, domain=domain)
