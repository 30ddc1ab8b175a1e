"""What all parts of the network driver stand on: the instance's networks, live and persistent configurations."""

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager

from virtd import constants as c
from virtd import uuids
from virtd.conf.network import Network as Config
from virtd.drivers.base import Context, Event
from virtd.drivers.network.networks import Entry, Networks
from virtd.drivers.network.running import Running, Status
from virtd.drivers.service import Service
from virtd.errors import VirtError
from virtd.protocol.records import Network
from virtd.state import journal
from virtd.state.commit import Change

# In the order of VIR_NETWORK_EVENT_ID_*: the index is the event's id.
_EVENTS = (
    ("lifecycle", "NETWORK_EVENT_LIFECYCLE"),
    ("metadata-change", "NETWORK_EVENT_CALLBACK_METADATA_CHANGE"),
)
_EVENT_IDS = {name: number for number, (name, _) in enumerate(_EVENTS)}


class NetworkBase(Service):
    """Base of the driver's parts, each of which adds the procedures of one subject."""

    error_domain = c.VIR_FROM_NETWORK
    scheme = "network"
    noun = "network"

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.networks = Networks(context.paths, self.generation)

    def close(self) -> None:
        self.networks.close()
        super().close()

    def connect_supports_feature(self, feature: int) -> int:
        """virConnectSupportsFeature: clients exchange two arguments of virNetworkUpdate where this is not said."""
        if feature == c.VIR_DRV_FEATURE_NETWORK_UPDATE_HAS_CORRECT_ORDER:
            return 1
        return super().connect_supports_feature(feature)

    def connect_network_event_register_any(self, event_id: int, network: Network | None) -> int:
        """virConnectNetworkEventRegisterAny."""
        return self.callbacks.register(event_id, len(_EVENTS), None if network is None else network.uuid)

    def connect_network_event_deregister_any(self, callback: int) -> None:
        """virConnectNetworkEventDeregisterAny."""
        self.callbacks.deregister(callback)

    def messages(self, record: journal.Record) -> Iterable[Event]:
        """The messages for this client that a record leads to."""
        event_id = _EVENT_IDS.get(str(record.get("name")))
        match record.get("network"), record.get("args"):
            case [str(name), str(uuid)], [*arguments] if event_id is not None:
                network = Network(name, uuids.to_bytes(uuid))
                for callback in self.callbacks.wanted(event_id, network.uuid):
                    yield Event("remote", _EVENTS[event_id][1], (callback, network, *arguments))

    def tell(self, change: Change, network: Entry | Status | Config, name: str, *arguments: object) -> None:
        """Tell of an event which the caller causes by the commit that it is in."""
        change.event("network", name, network=[network.name, network.uuid], args=list(arguments))

    def tell_lifecycle(self, change: Change, network: Entry | Status | Config, event: int) -> None:
        """Tell of a life cycle event (VIR_NETWORK_EVENT_*)."""
        self.tell(change, network, "lifecycle", event, 0)

    def locked(self, call: str) -> AbstractContextManager[None]:
        """Keep all others from changing definitions and from claiming names, bridges and addresses.

        Args:
            call: libvirt's name of the call, for the messages of those who wait.
        """
        return self.networks.definitions.locked(self.networks.lock_path, call, what="lock of the networks")

    @contextmanager
    def changing(self, uuid: str, name: str, call: str) -> Iterator[Running]:
        """Keep all others from changing a network's state; its directory is swept if it does not run afterwards."""
        running = Running(self.paths, uuid, name)
        lock = running.lock(call)
        try:
            yield running
        finally:
            running.unlock(lock)

    def active(self, network: Network) -> Entry:
        """A network that runs.

        Raises:
            VirtError: VIR_ERR_NO_NETWORK, or VIR_ERR_OPERATION_INVALID if it does not run.
        """
        entry = self.networks.find(network)
        if not entry.active:
            text = f"network '{entry.name}' is not active"
            raise VirtError(c.VIR_ERR_OPERATION_INVALID, text, domain=c.VIR_FROM_NETWORK)
        return entry

    def current(self, entry: Entry) -> Config:
        """The live configuration of a network that runs, else the persistent one."""
        return self.networks.running(entry).live() if entry.active else self.networks.config(entry)

    def affects(self, entry: Entry, flags: int) -> tuple[bool, bool]:
        """Whether VIR_NETWORK_UPDATE_AFFECT_* flags mean the live and the persistent configuration of a network.

        Raises:
            VirtError: VIR_ERR_OPERATION_INVALID, it does not have what they mean.
        """
        live = bool(flags & c.VIR_NETWORK_UPDATE_AFFECT_LIVE)
        config = bool(flags & c.VIR_NETWORK_UPDATE_AFFECT_CONFIG)
        if not (live or config):
            live, config = entry.active, not entry.active
        if live and not entry.active:
            raise VirtError(c.VIR_ERR_OPERATION_INVALID, "network is not running", domain=c.VIR_FROM_NETWORK)
        if config and not entry.persistent:
            text = "cannot change persistent config of a transient network"
            raise VirtError(c.VIR_ERR_OPERATION_INVALID, text, domain=c.VIR_FROM_NETWORK)
        return live, config
