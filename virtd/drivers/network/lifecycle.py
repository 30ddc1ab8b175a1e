"""Networks come and go: defined and undefined, started and destroyed, by hand or with the machine."""

import os

from virtd import constants as c
from virtd.conf.network import Network as Config
from virtd.conf.network import format_network, parse_network
from virtd.conf.xml import schema
from virtd.conf.xml.document import parse_document
from virtd.drivers.network import conflicts, life
from virtd.drivers.network.driverbase import NetworkBase
from virtd.drivers.network.networks import Entry
from virtd.drivers.network.running import Running, Status
from virtd.errors import VirtError, unsupported_flags
from virtd.protocol.records import Network
from virtd.state import files, locks, undo


class Lifecycle(NetworkBase):
    """Defining, starting, destroying, undefining networks."""

    REPEATED = frozenset({"network_define_xml", "network_define_xml_flags", "network_undefine"})

    def network_define_xml(self, xml: str) -> Network:
        """virNetworkDefineXML."""
        return self.network_define_xml_flags(xml, 0)

    def network_define_xml_flags(self, xml: str, flags: int) -> Network:
        """virNetworkDefineXMLFlags."""
        unsupported_flags(flags, c.VIR_NETWORK_DEFINE_VALIDATE, "networkDefineXMLFlags")
        config = _read(xml, validate=bool(flags & c.VIR_NETWORK_DEFINE_VALIDATE))
        with self.locked("virNetworkDefineXML"):
            # libvirt looks at the bridge before it looks at name and uuid.
            conflicts.settle_bridge(self.networks, config, new=True)
            conflicts.check_unique(self.networks, config)
            pending = self.prepare_definition(config)
            with self.generation.commit() as change:
                change.publish(pending)
                self.tell_lifecycle(change, config, c.VIR_NETWORK_EVENT_DEFINED)
        return self.networks.view().by_uuid[config.uuid or ""].reference

    def prepare_definition(self, config: Config) -> files.Pending:
        """Write a definition to disk, to be published in a commit; the networks' lock is held."""
        return self.networks.definitions.prepare(config.name or "", format_network(config))

    def network_undefine(self, network: Network) -> None:
        """virNetworkUndefine: one that runs goes on as a transient one."""
        with self.locked("virNetworkUndefine"):
            entry = self.networks.find(network)
            if not entry.persistent:
                text = "can't undefine transient network"
                raise VirtError(c.VIR_ERR_OPERATION_INVALID, text, domain=c.VIR_FROM_NETWORK)
            definitions = self.networks.definitions
            with self.generation.commit() as change:
                change.remove(definitions.path(entry.name), durable=True)
                change.remove(definitions.autostart_path(entry.name))
                self.tell_lifecycle(change, entry, c.VIR_NETWORK_EVENT_UNDEFINED)
            if not entry.active:
                self.networks.running(entry).forget_leases()
        undo.retry(self.networks.directory)

    def network_set_autostart(self, network: Network, autostart: int) -> None:
        """virNetworkSetAutostart."""
        with self.locked("virNetworkSetAutostart"):
            entry = self.networks.find(network)
            if not entry.persistent:
                text = "cannot set autostart for transient network"
                raise VirtError(c.VIR_ERR_OPERATION_INVALID, text, domain=c.VIR_FROM_NETWORK)
            if bool(autostart) == entry.autostart:
                return
            definitions = self.networks.definitions
            with self.generation.commit() as change:
                if autostart:
                    definitions.link_autostart(entry.name, change)
                else:
                    change.remove(definitions.autostart_path(entry.name), durable=True)

    def network_create(self, network: Network) -> None:
        """virNetworkCreate."""
        entry = self.networks.find(network)
        with self.changing(entry.uuid, entry.name, "virNetworkCreate") as running:
            undo.retry(self.networks.directory, entry.uuid)
            with self.locked("virNetworkCreate"):
                entry = self.networks.find(network)
                if entry.active:
                    text = "network is already active"
                    raise VirtError(c.VIR_ERR_OPERATION_INVALID, text, domain=c.VIR_FROM_NETWORK)
                config = life.live_of(self.networks.config(entry))
                status = self._claim(running, config)
            self._start(running, status, config)

    def network_create_xml(self, xml: str) -> Network:
        """virNetworkCreateXML."""
        return self.network_create_xml_flags(xml, 0)

    def network_create_xml_flags(self, xml: str, flags: int) -> Network:
        """virNetworkCreateXMLFlags: start a network that is not defined, or one that is with another configuration."""
        unsupported_flags(flags, c.VIR_NETWORK_CREATE_VALIDATE, "networkCreateXMLFlags")
        config = _read(xml, validate=bool(flags & c.VIR_NETWORK_CREATE_VALIDATE))
        with self.changing(config.uuid or "", config.name or "", "virNetworkCreateXML") as running:
            undo.retry(self.networks.directory, running.uuid)
            with self.locked("virNetworkCreateXML"):
                conflicts.settle_bridge(self.networks, config, new=True)
                entry = conflicts.check_unique(self.networks, config)
                if entry is not None and entry.active:
                    text = f"network is already active as '{entry.name}'"
                    raise VirtError(c.VIR_ERR_OPERATION_INVALID, text, domain=c.VIR_FROM_NETWORK)
                config = life.live_of(config)
                status = self._claim(running, config)
            self._start(running, status, config)
        return self.networks.view().by_uuid[status.uuid].reference

    def _claim(self, running: Running, config: Config) -> Status:
        """Take name, bridge and addresses for a network that is about to be started; both locks are held."""
        if not self.paths.privileged:
            text = (
                f"network '{config.name}' cannot be started: networks need the system's instance (network:///system); "
                "a session's guests have <interface type='user'/>"
            )
            raise VirtError(c.VIR_ERR_OPERATION_UNSUPPORTED, text, domain=c.VIR_FROM_NETWORK)
        conflicts.settle_bridge(self.networks, config, new=False)
        conflicts.check_start(self.networks, config)
        running.make()
        ranges = [str(ip.network) for ip in config.ips]
        status = Status(running.name, running.uuid, bridge=config.bridge or "", networks=ranges)
        pending = files.prepare(running.status_path, status.encode(), durable=False)
        # In a commit, so that everybody looks: if this process dies on the way, somebody has to clean up.
        with self.generation.commit() as change:
            change.publish(pending)
        return status

    def _start(self, running: Running, status: Status, config: Config) -> None:
        """Start a network that has been claimed; its lock is held."""
        try:
            life.bring_up(running, status, config)
            live, started = running.prepare_live(config), running.mark_started(status)
            with self.generation.commit() as change:
                change.publish(live)
                change.publish(started)
                self.tell_lifecycle(change, status, c.VIR_NETWORK_EVENT_STARTED)
        except BaseException:
            life.tear_down(running, status)
            files.remove(running.status_path)
            raise

    def network_destroy(self, network: Network) -> None:
        """virNetworkDestroy."""
        entry = self.active(network)
        with self.changing(entry.uuid, entry.name, "virNetworkDestroy") as running:
            self.active(network)
            status = running.status()
            assert status is not None
            # First it counts as ended: if this process dies in the middle, whoever looks next does the rest.
            status.started = 0.0
            pending = files.prepare(running.status_path, status.encode(), durable=False)
            with self.generation.commit() as change:
                change.publish(pending)
                self.tell_lifecycle(change, status, c.VIR_NETWORK_EVENT_STOPPED)
            life.tear_down(running, status)
            files.remove(running.status_path)
            if not os.path.exists(self.networks.definitions.path(running.name)):
                running.forget_leases()
        undo.retry(self.networks.directory)

    def autostart(self) -> list[VirtError]:
        """Start the networks which start with the machine, once after each boot; returns what could not be."""
        if not self.paths.privileged:
            return []
        undo.retry(self.networks.directory)
        with locks.held(f"{self.networks.autostarted_mark}.lock", "the start of networks", what="lock"):
            if os.path.exists(self.networks.autostarted_mark):
                return []
            failures = []
            for entry in list(self.networks.view()):
                if entry.autostart and not entry.active:
                    failure = self._autostart(entry)
                    if failure is not None:
                        failures.append(failure)
            files.replace(self.networks.autostarted_mark, b"", durable=False)
        return failures

    def _autostart(self, entry: Entry) -> VirtError | None:
        try:
            self.network_create(entry.reference)
        except VirtError as error:
            return VirtError(error.code, f"network '{entry.name}': {error.detail}", domain=c.VIR_FROM_NETWORK)
        return None

    def reapply(self) -> list[VirtError]:
        """Put the rules of all running networks in force again, after somebody has flushed all tables; for SIGHUP."""
        failures = []
        for entry in self.networks.view():
            if not entry.active:
                continue
            try:
                with self.changing(entry.uuid, entry.name, "the renewal of the rules") as running:
                    if running.status() is not None:
                        life.reapply_rules(running.live())
            except VirtError as error:
                failures.append(error)
        return failures


def _read(xml: str, *, validate: bool) -> Config:
    if validate:
        schema.validate(parse_document(xml, "network_definition", domain=c.VIR_FROM_NETWORK), "network.rng")
    config = parse_network(xml)
    for address in config.forward.addresses if config.forward is not None else []:
        device = f"/sys/bus/pci/devices/{address.text}"
        if not os.path.exists(f"{device}/physfn"):
            text = f"device '{device}' in network '{config.name}' is not an SR-IOV Virtual Function"
            raise VirtError(c.VIR_ERR_CONFIG_UNSUPPORTED, text, domain=c.VIR_FROM_NETWORK)
    return config
