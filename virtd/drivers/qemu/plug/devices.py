"""virDomainAttachDevice, virDomainDetachDevice, virDomainUpdateDevice."""

from collections.abc import Callable
from typing import Any

from virtd import constants as c
from virtd.conf.domain import Domain as Config
from virtd.conf.domain.base import Device
from virtd.conf.domain.disk import Disk
from virtd.conf.domain.display import Graphics, SpiceGraphics, VncGraphics
from virtd.conf.domain.interface import Interface
from virtd.conf.domain.memorydevice import MemoryDevice
from virtd.conf.domain.parse import finish
from virtd.drivers.qemu.changes import Changes, Told
from virtd.drivers.qemu.command import display
from virtd.drivers.qemu.guest import Guest
from virtd.drivers.qemu.plug import config as deviceconf
from virtd.drivers.qemu.plug import rules, updates
from virtd.drivers.qemu.plug.kinds import all_devices
from virtd.drivers.qemu.plug.live import Plug, unplug
from virtd.drivers.qemu.run import chains, helpers, interfaces, labels, launch, volumes
from virtd.errors import VirtError, unsupported_flags
from virtd.protocol.records import Domain

_AFFECT = c.VIR_DOMAIN_AFFECT_LIVE | c.VIR_DOMAIN_AFFECT_CONFIG


class Devices(Changes):
    """Devices that come, go and change; in the definition, in the running guest, or in both."""

    def domain_attach_device(self, domain: Domain, xml: str) -> None:
        """virDomainAttachDevice."""
        self.domain_attach_device_flags(domain, xml, c.VIR_DOMAIN_AFFECT_LIVE)

    def domain_attach_device_flags(self, domain: Domain, xml: str, flags: int) -> None:
        """virDomainAttachDeviceFlags."""
        unsupported_flags(flags, _AFFECT, "qemuDomainAttachDeviceLiveAndConfig")
        entry = self.guests.find(domain)
        live, _ = self.affects(entry, flags)
        what = deviceconf.wanted(xml, "attach", live=live)
        if live and what.kind == "disk" and _fills(self.live(entry), what.read()):
            # A medium for a drive that is there.
            self._update(domain, what, flags, "virDomainAttachDeviceFlags")
            return
        added: list[tuple[str, Any]] = []
        events: list[Told] = []

        def edit(config: Config, live: bool) -> None:
            if live:
                device = what.read()
                rules.check_attach(config, what.kind, device)
                rules.check_source(device)
            else:
                rules.check_saved(what.kind, what.read(), "attach")
            found = deviceconf.add(config, what, self.capabilities.host(), live=live)
            if live:
                added[:] = found

        def apply(guest: Guest, config: Config) -> None:
            for kind, device in added[:-1]:
                self._plug(guest, config, kind, device)
                # It stays, whatever becomes of the device that it is for.
                self._save_without(domain, guest, config, added[-1])
            kind, device = added[-1]
            self._plug(guest, config, kind, device)
            events.append(("device-added", (device.info.alias,)))

        self.change(domain, "virDomainAttachDeviceFlags", flags, edit, apply, events=events)

    def _plug(self, guest: Guest, config: Config, kind: str, device: Any) -> None:
        """Connect a device to what is behind it, and give it to the guest."""
        plugged = interfaces.nothing(self.capabilities.user)
        try:
            if isinstance(device, Interface):
                interfaces.plug_one(self.context, guest, device, plugged)
                helpers.start_beside(plugged.helpers, guest.undo_path, self.guests.log_path(guest.name))
            elif isinstance(device, Disk):
                volumes.look_up(self.context, config)
                chains.detect([device])
            with self._plugging(guest, config, plugged) as plug:
                plug.plug(kind, device)
                self._remember(guest, plug)
        except BaseException:
            if isinstance(device, Interface):
                interfaces.release(guest, device)
            raise
        finally:
            plugged.close()

    def _plugging(self, guest: Guest, config: Config, plugged: interfaces.Plugged | None = None) -> Plug:
        status = guest.status()
        if status is None:
            raise VirtError(c.VIR_ERR_OPERATION_INVALID, "domain is not running", domain=c.VIR_FROM_DOMAIN)
        setup = launch.setup(self, guest, [], plugged, running=True)
        binary, user = self.capabilities.binary_for(config), labels.user_of(config, self.capabilities.user)
        return Plug(config, binary, guest, status, setup, user=user, owners=self.guests.owners)

    def _remember(self, guest: Guest, plug: Plug) -> None:
        if plug.names:
            with guest.control() as control:
                control.facts(disks=plug.names)

    def _save_without(self, domain: Domain, guest: Guest, config: Config, last: tuple[str, Device]) -> None:
        kept = config.copy()
        kind, device = last
        twin = next(one for name, one in all_devices(kept) if name == kind and one.info.alias == device.info.alias)
        deviceconf.take_out(kept, kind, twin)
        self._commit(self.guests.find(domain), guest.prepare_live(kept), None)

    def domain_detach_device(self, domain: Domain, xml: str) -> None:
        """virDomainDetachDevice."""
        self.domain_detach_device_flags(domain, xml, c.VIR_DOMAIN_AFFECT_LIVE)

    def domain_detach_device_flags(self, domain: Domain, xml: str, flags: int) -> None:
        """virDomainDetachDeviceFlags."""
        unsupported_flags(flags, _AFFECT, "qemuDomainDetachDeviceLiveAndConfig")
        live, _ = self.affects(self.guests.find(domain), flags)
        what = deviceconf.wanted(xml, "detach", live=live)
        if live:
            rules.check_detachable(what.kind, what.read())
        else:
            rules.check_saved(what.kind, what.read(), "detach")

        def find(config: Config, live: bool) -> tuple[str, Any]:
            return what.kind, deviceconf.find(config, what, live=live)

        self._detach(domain, flags, "virDomainDetachDeviceFlags", find)

    def domain_detach_device_alias(self, domain: Domain, alias: str, flags: int) -> None:
        """virDomainDetachDeviceAlias."""
        unsupported_flags(flags, _AFFECT, "qemuDomainDetachDeviceAliasLiveAndConfig")
        call = "virDomainDetachDeviceAlias"
        self._detach(domain, flags, call, lambda config, live: deviceconf.find_alias(config, alias))

    def _detach(self, domain: Domain, flags: int, call: str, find: Callable[[Config, bool], tuple[str, Any]]) -> None:
        """Take a device away. A guest that does not let go of it in time keeps it; it has been asked, as in libvirt."""
        with self.held(domain, call) as entry:
            live, persistent = self.affects(entry, flags)
            if persistent:
                rules.check_saved(*find(self.config(entry), False), "detach")
            if live:
                config = self.live(entry)
                kind, device = find(config, True)
                rules.check_detach(config, kind, device)
                if _has_device(kind, device):
                    if unplug(self.guest(entry), device.info.alias):
                        self.settle(self.guests.find(domain))
                else:
                    self.drop(entry, kind, device)
            if not persistent:
                return
            with self.definitions_locked(call):
                config = self.config(entry).copy()
                deviceconf.take_out(config, *find(config, False))
                pending = [self.save_definition(config)]
                self._commit(entry, pending, None)

    def domain_update_device_flags(self, domain: Domain, xml: str, flags: int) -> None:
        """virDomainUpdateDeviceFlags: media, network cards, passwords of displays, the size of memory."""
        unsupported_flags(flags, _AFFECT | c.VIR_DOMAIN_DEVICE_MODIFY_FORCE, "qemuDomainUpdateDeviceFlags")
        live, _ = self.affects(self.guests.find(domain), flags)
        what = deviceconf.wanted(xml, "update", live=live)
        self._update(domain, what, flags, "virDomainUpdateDeviceFlags")

    def _update(self, domain: Domain, what: deviceconf.Wanted, flags: int, call: str) -> None:
        changed: list[tuple[Any, Any]] = []

        def edit(config: Config, live: bool) -> None:
            found = updates.edit(config, what, live=live)
            if live:
                changed[:] = [found]
            else:
                finish(config, self.capabilities.host())

        def apply(guest: Guest, config: Config) -> None:
            before, after = changed[0]
            match after:
                case Interface():
                    self._update_card(guest, before, after)
                case Disk():
                    volumes.look_up(self.context, config)
                    chains.detect([after])
                    with self._plugging(guest, config) as plug:
                        plug.insert(after, force=bool(flags & c.VIR_DOMAIN_DEVICE_MODIFY_FORCE))
                        self._remember(guest, plug)
                case Graphics():
                    _update_display(guest, after)
                case MemoryDevice():
                    path = f"/machine/peripheral/{after.info.alias}"
                    size = (after.requested or 0) * 1024
                    with guest.monitor() as monitor:
                        monitor.execute("qom-set", {"path": path, "property": "requested-size", "value": size})

        self.change(domain, call, flags, edit, apply)

    def _update_card(self, guest: Guest, before: Interface, after: Interface) -> None:
        """Let a card be what its new description says: where it is plugged in, its limits, its link."""
        if after.source != before.source:
            interfaces.reconnect(self.context, guest, before, after)
        elif after.isolated != before.isolated:
            interfaces.isolate(after)
        if after.bandwidth != before.bandwidth:
            interfaces.change_limits(self.context, guest, after, before.bandwidth)
        if after.link != before.link:
            with guest.monitor() as monitor:
                monitor.execute("set_link", {"name": after.info.alias, "up": after.link != "down"})


def _fills(config: Config, disk: Disk) -> bool:
    """Whether a disk is the medium of a drive that a guest has."""
    return disk.device in ("cdrom", "floppy") and any(one.target == disk.target for one in config.disks)


def _has_device(kind: str, device: Any) -> bool:
    """Whether QEMU has a device of its own for it: a port forwarded by a user network is only the network's."""
    return not (kind == "channel" and device.target_type == "guestfwd")


def _update_display(guest: Guest, graphics: Graphics) -> None:
    """Tell QEMU the password of a display (set_password, expire_password)."""
    if isinstance(graphics, VncGraphics | SpiceGraphics) and graphics.passwd is not None:
        kind = type(graphics).kind
        with guest.monitor() as monitor:
            for name, arguments in display.password(
                kind, graphics.passwd, graphics.connected, graphics.passwd_valid_to
            ):
                monitor.execute(name, arguments)
