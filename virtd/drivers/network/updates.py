"""Changes of networks that are defined or run: sections of their XML, title, description, the users' own elements."""

from virtd import constants as c
from virtd.conf.network import Network as Config
from virtd.conf.network.update import update
from virtd.conf.xml.metadata import extract, replaced
from virtd.drivers.network import dnsmasq, firewall, life
from virtd.drivers.network.lifecycle import Lifecycle
from virtd.drivers.network.running import Running
from virtd.errors import VirtError, unsupported_flags
from virtd.protocol.records import Network
from virtd.state import files

_AFFECT = c.VIR_NETWORK_UPDATE_AFFECT_LIVE | c.VIR_NETWORK_UPDATE_AFFECT_CONFIG
# VIR_ERR_NO_NETWORK_METADATA and virNetworkMetadataType are younger than libvirt 9.0; the words of the error are not.
_NO_NETWORK_METADATA = 111
_DESCRIPTION, _TITLE, _ELEMENT = 0, 1, 2


class Updates(Lifecycle):
    """virNetworkUpdate, virNetworkGetMetadata, virNetworkSetMetadata."""

    def network_update(self, network: Network, command: int, section: int, index: int, xml: str, flags: int) -> None:
        """virNetworkUpdate."""
        unsupported_flags(flags, _AFFECT, "networkUpdate")
        entry = self.networks.find(network)
        with self.changing(entry.uuid, entry.name, "virNetworkUpdate") as running:
            entry = self.networks.find(network)
            live, persistent = self.affects(entry, flags)
            if persistent:
                # What is wrong with the definition is to be said before anything is done to the running network.
                update(self.networks.config(entry).copy(), command, section, index, xml)
            pending: list[files.Pending] = []
            if live:
                config = running.live()
                update(config, command, section, index, xml)
                self._apply(running, config)
                pending.append(running.prepare_live(config))
            with self.locked("virNetworkUpdate"):
                if persistent:
                    config = self.networks.config(self.networks.find(network)).copy()
                    update(config, command, section, index, xml)
                    pending.append(self.prepare_definition(config))
                with self.generation.commit() as change:
                    for file in pending:
                        change.publish(file)

    def _apply(self, running: Running, config: Config) -> None:
        """Let a running network be what its new live configuration says."""
        if not config.own_bridge:
            return
        status = running.status()
        assert status is not None
        firewall.apply(config)
        where = running.files
        wanted = dnsmasq.configuration(config, where) if dnsmasq.needed(config) else None
        have = files.read(where.configuration)
        if (wanted.encode() if wanted is not None else None) != have:
            life.restart_dnsmasq(running, status, config)
            files.replace(running.status_path, status.encode(), durable=False)
        elif wanted is not None:
            dnsmasq.write_hosts(config, where)
            dnsmasq.reload(where)

    def network_get_metadata(self, network: Network, kind: int, uri: str | None, flags: int) -> str:
        """virNetworkGetMetadata."""
        if flags & _AFFECT == _AFFECT:
            text = (
                "Flags 'VIR_NETWORK_UPDATE_AFFECT_LIVE' and 'VIR_NETWORK_UPDATE_AFFECT_CONFIG' are mutually exclusive"
            )
            raise VirtError.invalid_argument("virNetworkGetMetadata", "ctl", text, domain=c.VIR_FROM_NETWORK)
        unsupported_flags(flags, _AFFECT, "networkGetMetadata")
        entry = self.networks.find(network)
        live, _ = self.affects(entry, flags)
        config = self.networks.running(entry).live() if live else self.networks.config(entry)
        if kind == _DESCRIPTION:
            found = config.description
        elif kind == _TITLE:
            found = config.title
        elif kind == _ELEMENT:
            found = extract(config.metadata, _required(uri, "uri", "virNetworkGetMetadata"))
        else:
            raise _unknown(kind)
        if not found:
            failure = VirtError(c.VIR_ERR_NO_DOMAIN_METADATA, "Requested metadata element is not present")
            failure.code = _NO_NETWORK_METADATA
            raise failure
        return found

    def network_set_metadata(
        self, network: Network, kind: int, metadata: str | None, key: str | None, uri: str | None, flags: int
    ) -> None:
        """virNetworkSetMetadata; without metadata what is there is removed."""
        unsupported_flags(flags, _AFFECT, "networkSetMetadata")
        _check_metadata(kind, metadata, key, uri)
        entry = self.networks.find(network)
        with (
            self.changing(entry.uuid, entry.name, "virNetworkSetMetadata") as running,
            self.locked("virNetworkSetMetadata"),
        ):
            entry = self.networks.find(network)
            live, persistent = self.affects(entry, flags)
            pending: list[files.Pending] = []
            if persistent:
                config = self.networks.config(entry).copy()
                _set(config, kind, metadata, key, uri)
                pending.append(self.prepare_definition(config))
            if live:
                config = running.live()
                _set(config, kind, metadata, key, uri)
                pending.append(running.prepare_live(config))
            with self.generation.commit() as change:
                for file in pending:
                    change.publish(file)
                self.tell(change, entry, "metadata-change", kind, uri)


def _check_metadata(kind: int, metadata: str | None, key: str | None, uri: str | None) -> None:
    function = "virNetworkSetMetadata"
    if kind in (_DESCRIPTION, _TITLE):
        for name, value in (("key", key), ("uri", uri)):
            if value is not None:
                text = f"{name} in {function} must be NULL"
                raise VirtError.invalid_argument(function, name, text, domain=c.VIR_FROM_NETWORK)
        if kind == _TITLE and metadata and "\n" in metadata:
            text = "metadata title can't contain newlines"
            raise VirtError.invalid_argument(function, "metadata", text, domain=c.VIR_FROM_NETWORK)
    elif kind == _ELEMENT:
        _required(uri, "uri", function)
        if metadata:
            _required(key, "key", function)
    else:
        raise _unknown(kind)


def _set(config: Config, kind: int, metadata: str | None, key: str | None, uri: str | None) -> None:
    if kind == _DESCRIPTION:
        config.description = metadata or None
    elif kind == _TITLE:
        config.title = metadata or None
    else:
        config.metadata = replaced(config.metadata, metadata, key or "", uri or "", c.VIR_FROM_NETWORK)


def _required(value: str | None, name: str, function: str) -> str:
    if value is None:
        text = f"{name} in {function} must not be NULL"
        raise VirtError.invalid_argument(function, name, text, domain=c.VIR_FROM_NETWORK)
    return value


def _unknown(kind: int) -> VirtError:
    return VirtError(c.VIR_ERR_INVALID_ARG, f"unknown metadata type '{kind}'", domain=c.VIR_FROM_NETWORK)
