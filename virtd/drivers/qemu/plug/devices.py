"""virDomainAttachDevice, virDomainDetachDevice, virDomainUpdateDevice."""

from typing import Any

from virtd import constants as c
from virtd.conf.domain import Domain as Config
from virtd.conf.domain.devices import Rng
from virtd.conf.domain.disk import Disk
from virtd.conf.domain.interface import Interface
from virtd.drivers.qemu.changes import Changes, Told
from virtd.drivers.qemu.command import storage
from virtd.drivers.qemu.guest import Guest
from virtd.drivers.qemu.plug import config as deviceconf
from virtd.drivers.qemu.plug.live import Plug, unplug
from virtd.errors import VirtError, unsupported_flags
from virtd.protocol.records import Domain
from virtd.state import files

_AFFECT = c.VIR_DOMAIN_AFFECT_LIVE | c.VIR_DOMAIN_AFFECT_CONFIG
_REMOVABLE = ("cdrom", "floppy")


class Devices(Changes):
    """Devices that come, go and change; in the definition, in the running guest, or in both."""

    def domain_attach_device(self, domain: Domain, xml: str) -> None:
        """virDomainAttachDevice."""
        self.domain_attach_device_flags(domain, xml, c.VIR_DOMAIN_AFFECT_LIVE)

    def domain_attach_device_flags(self, domain: Domain, xml: str, flags: int) -> None:
        """virDomainAttachDeviceFlags."""
        unsupported_flags(flags, _AFFECT, "qemuDomainAttachDeviceLiveAndConfig")
        live, _ = self.affects(self.guests.find(domain), flags)
        what = deviceconf.wanted(xml, "attach", live=live)
        added: list[Any] = []
        events: list[Told] = []

        def edit(config: Config, live: bool) -> None:
            device = deviceconf.add(config, what, self.capabilities.host(), live=live)
            if live:
                if not isinstance(device, Disk | Interface | Rng):
                    raise deviceconf.unsupported("attach", what.kind, live=True)
                _check_source(device)
                added[:] = [device]

        def apply(guest: Guest, config: Config) -> None:
            status = self.running(domain)[1]
            plug = Plug(config, self.capabilities.binary_for(config), guest, status, self.guests.owners)
            plug.plug(added[0], self.capabilities.user)
            if plug.names:
                with guest.control() as control:
                    control.facts(disks=plug.names)
            events.append(("device-added", (added[0].info.alias,)))

        self.change(domain, "virDomainAttachDeviceFlags", flags, edit, apply, events=events)

    def domain_detach_device(self, domain: Domain, xml: str) -> None:
        """virDomainDetachDevice."""
        self.domain_detach_device_flags(domain, xml, c.VIR_DOMAIN_AFFECT_LIVE)

    def domain_detach_device_flags(self, domain: Domain, xml: str, flags: int) -> None:
        """virDomainDetachDeviceFlags."""
        unsupported_flags(flags, _AFFECT, "qemuDomainDetachDeviceLiveAndConfig")
        live, _ = self.affects(self.guests.find(domain), flags)
        what = deviceconf.wanted(xml, "detach", live=live)
        self._detach(
            domain, flags, "virDomainDetachDeviceFlags", lambda config: (what.kind, deviceconf.find(config, what))
        )

    def domain_detach_device_alias(self, domain: Domain, alias: str, flags: int) -> None:
        """virDomainDetachDeviceAlias."""
        unsupported_flags(flags, _AFFECT, "qemuDomainDetachDeviceAliasLiveAndConfig")
        call = "virDomainDetachDeviceAlias"
        self._detach(domain, flags, call, lambda config: deviceconf.find_alias(config, alias))

    def _detach(self, domain: Domain, flags: int, call: str, find: Any) -> None:
        """Take a device away. A guest that does not let go of it in time keeps it; it has been asked, as in libvirt."""
        with self.held(domain, call) as entry:
            live, persistent = self.affects(entry, flags)
            if persistent:
                find(self.config(entry))
            if live:
                kind, device = find(self.live(entry))
                _check_removable(kind, device)
                if unplug(self.guest(entry), device.info.alias):
                    self.settle(self.guests.find(domain))
            if not persistent:
                return
            with self.definitions_locked(call):
                config = self.config(entry).copy()
                deviceconf.remove(config, *find(config))
                pending = [self.save_definition(config)]
                self._commit(entry, pending, None)

    def domain_update_device_flags(self, domain: Domain, xml: str, flags: int) -> None:
        """virDomainUpdateDeviceFlags: the medium of a drive, the link of a network card."""
        force = c.VIR_DOMAIN_DEVICE_MODIFY_FORCE
        unsupported_flags(flags, _AFFECT | force, "qemuDomainUpdateDeviceFlags")
        live, _ = self.affects(self.guests.find(domain), flags)
        what = deviceconf.wanted(xml, "update", live=live)
        changed: list[Any] = []

        def edit(config: Config, live: bool) -> None:
            if what.kind not in ("disk", "interface"):
                raise deviceconf.unsupported("update", what.kind, live=live)
            new = what.read()
            old = _to_update(config, what, new)
            if isinstance(old, Disk):
                _change_medium(old, new, live=live)
            elif isinstance(old, Interface):
                _change_card(old, new, live=live)
            if live:
                changed[:] = [old]

        def apply(guest: Guest, config: Config) -> None:
            device = changed[0]
            if isinstance(device, Interface):
                with guest.monitor() as monitor:
                    monitor.execute("set_link", {"name": device.info.alias, "up": device.link != "down"})
                return
            status = self.running(domain)[1]
            plug = Plug(config, self.capabilities.binary_for(config), guest, status, self.guests.owners)
            plug.insert(device, self.capabilities.user, force=bool(flags & force))
            if plug.names:
                with guest.control() as control:
                    control.facts(disks=plug.names)

        self.change(domain, "virDomainUpdateDeviceFlags", flags, edit, apply)


def _check_source(device: Any) -> None:
    """Say what is missing before QEMU does."""
    if not isinstance(device, Disk):
        return
    path = storage.local_path(device.source)
    if path is not None and files.identity(path) is None:
        text = f"Cannot access storage file '{path}': No such file or directory"
        raise VirtError(c.VIR_ERR_SYSTEM_ERROR, text, domain=c.VIR_FROM_STORAGE)


def _check_removable(kind: str, device: Any) -> None:
    if isinstance(device, Disk):
        if device.device not in ("disk", "lun"):
            text = f"disk device type '{device.device}' cannot be detached"
        elif device.bus not in ("virtio", "usb", "scsi"):
            text = "This type of disk cannot be hot unplugged"
        else:
            return
        raise VirtError(c.VIR_ERR_OPERATION_UNSUPPORTED, text, domain=c.VIR_FROM_QEMU)
    if not isinstance(device, Interface | Rng):
        raise deviceconf.unsupported("detach", kind, live=True)


def _to_update(config: Config, what: deviceconf.Wanted, new: Any) -> Any:
    if isinstance(new, Disk):
        old = next((one for one in config.disks if one.target == new.target), None)
        if old is None:
            text = f"target {new.target} doesn't exist."
            raise VirtError(c.VIR_ERR_INVALID_ARG, text, domain=c.VIR_FROM_QEMU)
        return old
    return deviceconf.find(config, what)


def _change_medium(old: Disk, new: Disk, *, live: bool) -> None:
    """Let a drive have another disk's medium."""
    if live and old.device not in _REMOVABLE:
        text = "disk source can be changed only in removable drives"
        raise VirtError(c.VIR_ERR_CONFIG_UNSUPPORTED, text, domain=c.VIR_FROM_QEMU)
    _check_source(new)
    old.type, old.source, old.backing = new.type, new.source, None
    old.driver.type = new.driver.type or "raw"
    if not live:
        old.driver, old.iotune = new.driver, new.iotune
        old.driver.type = old.driver.type or "raw"


def _change_card(old: Interface, new: Interface, *, live: bool) -> None:
    """Let a card have another one's link; of a running guest nothing else."""
    if live:
        for field, name in (("model", "model"), ("mtu", "MTU"), ("driver", "driver attributes")):
            given, had = getattr(new, field), getattr(old, field)
            if given is not None and given != had:
                text = f"cannot modify network device {name}"
                text += f" from {had} to {given}" if field == "model" else ""
                raise VirtError(c.VIR_ERR_OPERATION_UNSUPPORTED, text, domain=c.VIR_FROM_QEMU)
        if new.type != old.type:
            text = f"cannot change config of '{old.type}' network type"
            raise VirtError(c.VIR_ERR_OPERATION_UNSUPPORTED, text, domain=c.VIR_FROM_QEMU)
        if new.source != old.source or new.bandwidth != old.bandwidth:
            text = "only the link state of a running guest's interface can be changed"
            raise VirtError(c.VIR_ERR_OPERATION_UNSUPPORTED, text, domain=c.VIR_FROM_QEMU)
    else:
        for field in ("model", "mtu", "driver", "bandwidth", "filterref", "type", "source"):
            setattr(old, field, getattr(new, field))
    old.link = new.link
