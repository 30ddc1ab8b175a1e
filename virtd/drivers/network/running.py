"""A running network as what it is on disk: one directory, named by its uuid.

    lock          the state change lock (virtd.state.locks)
    supervisor    locked by the supervisor of the network's dnsmasq as long as it lives
    status        run-time facts, JSON
    live.xml      the live XML
    undo          what has to be put back when the network ends (virtd.state.undo)
    ports/        a port of a guest each: <uuid>.xml
    dnsmasq.*     the files of its dnsmasq (dnsmasq.Files)

The leases lie elsewhere: they outlive the network.
"""

import json
import os
import time
from dataclasses import asdict, dataclass, field

from virtd import constants as c
from virtd.conf.network import Network, format_network, parse_network
from virtd.drivers.network import dnsmasq
from virtd.errors import VirtError
from virtd.state import files, locks, undo
from virtd.state.paths import Paths

# Where libvirt's NSS module looks for the leases of the machine's own networks.
_NSS_DIRECTORY = "/var/lib/libvirt/dnsmasq"
_SYSTEM_STATE = "/var/lib/virtd"


@dataclass(slots=True)
class Status:
    """The run-time facts of one network."""

    name: str
    uuid: str
    bridge: str = ""  # of its own, or that it uses; empty if it has none
    networks: list[str] = field(default_factory=list)  # the address ranges it claims
    dnsmasq: bool = False  # whether it has a dnsmasq, and so a supervisor
    started: float = 0.0  # seconds since the epoch; 0 while the start is under way

    @property
    def active(self) -> bool:
        """Whether the network counts as running: its start has succeeded."""
        return self.started > 0

    def encode(self) -> bytes:
        return json.dumps(asdict(self), indent=1).encode() + b"\n"


def load_status(path: str) -> Status | None:
    """The status in a file; None if there is none.

    Raises:
        VirtError: VIR_ERR_INTERNAL_ERROR, it is not what encode() wrote.
    """
    content = files.read(path)
    if content is None:
        return None
    try:
        return Status(**json.loads(content))
    except (ValueError, TypeError):
        text = f"'{path}' is not the status of a network"
        raise VirtError(c.VIR_ERR_INTERNAL_ERROR, text, domain=c.VIR_FROM_NETWORK) from None


class Running:
    """The directory of one network that is running, starting or ending.

    Args:
        paths: the instance's directories.
        uuid: the network's uuid as text.
        name: the network's name.
    """

    def __init__(self, paths: Paths, uuid: str, name: str) -> None:
        self.uuid = uuid
        self.name = name
        self.directory = f"{paths.runtime}/networks/{uuid}"
        self.lock_path = f"{self.directory}/lock"
        self.supervisor_path = f"{self.directory}/supervisor"
        self.status_path = f"{self.directory}/status"
        self.live_path = f"{self.directory}/live.xml"
        self.undo_path = f"{self.directory}/undo"
        self.ports = f"{self.directory}/ports"
        self.log_path = f"{paths.log}/networks/{name}.log"
        self.lease_directory = f"{paths.state}/networks/{uuid}"
        self.files = dnsmasq.Files(self.directory, f"{self.lease_directory}/leases", self.log_path)
        self._nss = _NSS_DIRECTORY if paths.state == _SYSTEM_STATE else f"{paths.state}/dnsmasq"

    def lease_status(self, bridge: str) -> str:
        """Where libvirt's status file of the leases lies."""
        return f"{self._nss}/{bridge}.status"

    def mac_map(self, bridge: str) -> str:
        """Where libvirt's file lies that says which guest has which MAC addresses."""
        return f"{self._nss}/{bridge}.macs"

    def lock(self, call: str) -> locks.Lock:
        """Take the state change lock; see virtd.state.locks.acquire()."""
        return locks.acquire(self.lock_path, call)

    def unlock(self, lock: locks.Lock) -> None:
        """Give the state change lock back, and with it the directory if the network has ended meanwhile."""
        if not os.path.exists(self.status_path):
            self.sweep()
        lock.release()

    def status(self) -> Status | None:
        """The network's run-time facts; None if it does not run."""
        return load_status(self.status_path)

    def live(self) -> Network:
        """What the network is at the moment.

        Raises:
            VirtError: VIR_ERR_OPERATION_INVALID, it does not run.
        """
        content = files.read(self.live_path)
        if content is None:
            text = f"network '{self.name}' is not active"
            raise VirtError(c.VIR_ERR_OPERATION_INVALID, text, domain=c.VIR_FROM_NETWORK)
        return parse_network(content.decode(), inactive=False)

    def prepare_live(self, network: Network) -> files.Pending:
        """Write the live XML to disk, to be published in a commit."""
        return files.prepare(self.live_path, format_network(network, live=True).encode(), durable=False)

    def mark_started(self, status: Status) -> files.Pending:
        """Write a status to disk that says that the network runs, to be published in a commit."""
        status.started = time.time()
        return files.prepare(self.status_path, status.encode(), durable=False)

    def make(self) -> None:
        """Make the directories."""
        files.make_directory(self.directory, 0o711)
        files.make_directory(self.ports, 0o700)
        files.make_directory(os.path.dirname(self.log_path))
        files.make_directory(self.lease_directory)
        files.make_directory(self._nss)

    def sweep(self) -> None:
        """Remove what is left of the directory of a network that has ended; the state change lock is held."""
        undo.keep(self.undo_path)  # if a full disk has kept whoever was to undo it from that
        for path in (*self.files.all, self.live_path):
            files.remove(path)
        # With what was being written when its writer died.
        for name in os.listdir(self.ports) if os.path.isdir(self.ports) else ():
            files.remove(f"{self.ports}/{name}")
        try:
            os.rmdir(self.ports)
        except FileNotFoundError:
            pass
        for name in os.listdir(self.directory):
            if name not in ("lock", "supervisor"):
                files.remove(f"{self.directory}/{name}")
        files.remove(self.supervisor_path)
        # The lock goes last: whoever waits for it finds it gone, and begins anew.
        files.remove(self.lock_path)
        try:
            os.rmdir(self.directory)
        except OSError:
            pass  # somebody makes the next network of this uuid in it already

    def forget_leases(self) -> None:
        """Remove the leases; the network's definition goes with its last life."""
        files.remove(self.files.leases)
        try:
            os.rmdir(self.lease_directory)
        except OSError:
            pass

    def port_path(self, uuid: str) -> str:
        """Where a port is written down."""
        return f"{self.ports}/{uuid}.xml"

    def port_files(self) -> list[str]:
        """The files of all ports."""
        try:
            return sorted(f"{self.ports}/{name}" for name in os.listdir(self.ports) if name[0] != ".")
        except FileNotFoundError:
            return []
