"""The structures which drivers take and return, as named tuples with the wire's field names.

Only those shared by several procedures; what a single procedure takes and returns is a plain tuple. A structure
that is not declared here gets a named tuple made from the table when it is first needed.
"""

from __future__ import annotations

from virtd.tuples import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class Domain(NamedTuple):
    """A guest (remote_nonnull_domain). `id` is -1 unless it runs."""

    name: str
    uuid: bytes
    id: int


class Network(NamedTuple):
    """A virtual network (remote_nonnull_network)."""

    name: str
    uuid: bytes


class NetworkPort(NamedTuple):
    """A port of a virtual network (remote_nonnull_network_port)."""

    net: Network
    uuid: bytes


class Nwfilter(NamedTuple):
    """A network filter (remote_nonnull_nwfilter)."""

    name: str
    uuid: bytes


class NwfilterBinding(NamedTuple):
    """A network filter in force on a device (remote_nonnull_nwfilter_binding)."""

    portdev: str
    filtername: str


class Interface(NamedTuple):
    """A network interface of the host (remote_nonnull_interface)."""

    name: str
    mac: str


class StoragePool(NamedTuple):
    """A storage pool (remote_nonnull_storage_pool)."""

    name: str
    uuid: bytes


class StorageVol(NamedTuple):
    """A volume of a storage pool (remote_nonnull_storage_vol)."""

    pool: str
    name: str
    key: str


class NodeDevice(NamedTuple):
    """A device of the host (remote_nonnull_node_device)."""

    name: str


class Secret(NamedTuple):
    """A secret (remote_nonnull_secret)."""

    uuid: bytes
    usageType: int  # noqa: N815
    usageID: str  # noqa: N815


class DomainSnapshot(NamedTuple):
    """A snapshot of a guest (remote_nonnull_domain_snapshot)."""

    name: str
    dom: Domain


class DomainCheckpoint(NamedTuple):
    """A checkpoint of a guest (remote_nonnull_domain_checkpoint)."""

    name: str
    dom: Domain


class TypedValue(NamedTuple):
    """The value of a typed parameter (remote_typed_param_value): VIR_TYPED_PARAM_* and an int, float or str."""

    type: int
    value: Any


class TypedParam(NamedTuple):
    """A typed parameter (remote_typed_param)."""

    field: str
    value: TypedValue


class VcpuInfo(NamedTuple):
    """State, CPU time (ns) and host CPU of a virtual CPU (remote_vcpu_info)."""

    number: int
    state: int
    cpu_time: int
    cpu: int


class NodeCpuStat(NamedTuple):
    """A counter of the host's CPUs, in ns (remote_node_get_cpu_stats)."""

    field: str
    value: int


class NodeMemoryStat(NamedTuple):
    """A number about the host's memory, in KiB (remote_node_get_memory_stats)."""

    field: str
    value: int


class DiskError(NamedTuple):
    """A disk which had an I/O error (remote_domain_disk_error)."""

    disk: str
    error: int


class MemoryStat(NamedTuple):
    """A number about a guest's memory, VIR_DOMAIN_MEMORY_STAT_* (remote_domain_memory_stat)."""

    tag: int
    val: int


class IothreadInfo(NamedTuple):
    """An I/O thread and the host CPUs it may use (remote_domain_iothread_info)."""

    iothread_id: int
    cpumap: bytes


class GraphicsAddress(NamedTuple):
    """One end of a graphics connection (remote_domain_event_graphics_address)."""

    family: int
    node: str
    service: str


class GraphicsIdentity(NamedTuple):
    """Who a graphics client is (remote_domain_event_graphics_identity)."""

    type: str
    name: str


class DhcpLease(NamedTuple):
    """A lease of a virtual network (remote_network_dhcp_lease)."""

    iface: str
    expirytime: int
    type: int
    mac: str | None
    iaid: str | None
    ipaddr: str
    prefix: int
    hostname: str | None
    clientid: str | None


class DomainStatsRecord(NamedTuple):
    """The statistics of one guest (remote_domain_stats_record)."""

    dom: Domain
    params: list[TypedParam]


class DomainFsinfo(NamedTuple):
    """A file system mounted in a guest (remote_domain_fsinfo)."""

    mountpoint: str
    name: str
    fstype: str
    dev_aliases: list[str]


class DomainIpAddr(NamedTuple):
    """An address of a guest's interface (remote_domain_ip_addr)."""

    type: int
    addr: str
    prefix: int


class DomainInterface(NamedTuple):
    """An interface of a guest with its addresses (remote_domain_interface)."""

    name: str
    hwaddr: str | None
    addrs: list[DomainIpAddr]


class SecurityLabel(NamedTuple):
    """A guest's security label (remote_domain_get_security_label_ret), with a NUL behind it."""

    label: bytes
    enforcing: int


class AdminServer(NamedTuple):
    """A server of the daemon (admin_nonnull_server)."""

    name: str


class AdminClient(NamedTuple):
    """A client of a server, since `timestamp` (s since 1970), over `transport` (admin_nonnull_client)."""

    srv: AdminServer
    id: int
    timestamp: int
    transport: int


# The class of each structure of the tables that has one, by its name there.
RECORDS: dict[str, type[Any]] = {
    "domain": Domain,
    "network": Network,
    "network_port": NetworkPort,
    "nwfilter": Nwfilter,
    "nwfilter_binding": NwfilterBinding,
    "interface": Interface,
    "storage_pool": StoragePool,
    "storage_vol": StorageVol,
    "node_device": NodeDevice,
    "secret": Secret,
    "domain_snapshot": DomainSnapshot,
    "domain_checkpoint": DomainCheckpoint,
    "typed_param": TypedParam,
    "typed_param_value": TypedValue,
    "vcpu_info": VcpuInfo,
    "node_get_cpu_stats": NodeCpuStat,
    "node_get_memory_stats": NodeMemoryStat,
    "domain_disk_error": DiskError,
    "domain_memory_stat": MemoryStat,
    "domain_iothread_info": IothreadInfo,
    "domain_event_graphics_address": GraphicsAddress,
    "domain_event_graphics_identity": GraphicsIdentity,
    "network_dhcp_lease": DhcpLease,
    "domain_stats_record": DomainStatsRecord,
    "domain_fsinfo": DomainFsinfo,
    "domain_ip_addr": DomainIpAddr,
    "domain_interface": DomainInterface,
    "domain_get_security_label_ret": SecurityLabel,
    "server": AdminServer,
    "client": AdminClient,
}
