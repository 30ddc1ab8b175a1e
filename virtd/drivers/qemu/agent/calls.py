"""Calls that the guest itself carries out, by its agent."""

import base64
import json

from virtd import constants as c
from virtd.conf.xml.types import BITMAP, format_ranges
from virtd.drivers import typed
from virtd.drivers.qemu import messages, shape
from virtd.drivers.qemu.agent.channel import Agent, AgentUser
from virtd.drivers.qemu.agent.client import COMMAND_SECONDS, SYNC_SECONDS, agent_error
from virtd.drivers.qemu.agent.info import TYPES, disk_aliases, gather
from virtd.errors import VirtError, unsupported_flags
from virtd.protocol.records import Domain, DomainFsinfo, TypedParam

_SUSPEND = {
    c.VIR_NODE_SUSPEND_TARGET_MEM: "guest-suspend-ram",
    c.VIR_NODE_SUSPEND_TARGET_DISK: "guest-suspend-disk",
    c.VIR_NODE_SUSPEND_TARGET_HYBRID: "guest-suspend-hybrid",
}
_NS = 1_000_000_000
_QEMU = c.VIR_FROM_QEMU


class AgentCalls(AgentUser):
    """Time, name, file systems, users and virtual CPUs of a guest, as it tells of them itself."""

    def _press(self, domain: Domain, call: str, *, agent_only: bool, reboots: bool) -> None:
        """Shut a guest down: by its power button, or by its agent if only that may be asked."""
        if not agent_only:
            super()._press(domain, call, agent_only=False, reboots=reboots)
            return
        with self.agent(domain, call, inactive=_QEMU) as agent:
            agent.tell("guest-shutdown", {"mode": "reboot" if reboots else "powerdown"})

    def domain_get_time(self, domain: Domain, flags: int) -> tuple[int, int]:
        """virDomainGetTime: seconds since 1970, and nanoseconds."""
        unsupported_flags(flags, 0, "qemuDomainGetTime")
        with self.agent(domain, "virDomainGetTime") as agent:
            now = agent.execute("guest-get-time")
        if not isinstance(now, int):
            raise shape.ShapeError("'guest-get-time' in data is no integer")
        return now // _NS, now % _NS

    def domain_set_time(self, domain: Domain, seconds: int, nanoseconds: int, flags: int) -> None:
        """virDomainSetTime: to a time, or (SYNC) to that of the guest's own hardware clock."""
        unsupported_flags(flags, c.VIR_DOMAIN_TIME_SYNC, "qemuDomainSetTime")
        with self._changing(domain, "virDomainSetTime") as (_, guest):
            with self.agent(domain, "virDomainSetTime") as agent:
                sync = bool(flags & c.VIR_DOMAIN_TIME_SYNC)
                agent.execute("guest-set-time", None if sync else {"time": seconds * _NS + nanoseconds})
            # Ticks that the guest has missed would else be delivered on top.
            with guest.monitor() as monitor:
                monitor.execute("rtc-reset-reinjection")

    def domain_get_hostname(self, domain: Domain, flags: int) -> str:
        """virDomainGetHostname."""
        lease, agent_flag = c.VIR_DOMAIN_GET_HOSTNAME_LEASE, c.VIR_DOMAIN_GET_HOSTNAME_AGENT
        unsupported_flags(flags, lease | agent_flag, "qemuDomainGetHostname")
        if flags & lease:
            self.running(domain)
            text = f"no hostname found for domain {domain.name}"
            raise VirtError(c.VIR_ERR_NO_HOSTNAME, text)
        with self.agent(domain, "virDomainGetHostname") as agent:
            answer = shape.as_table(agent.execute("guest-get-host-name"), "guest-get-host-name")
        return shape.text(answer, "host-name")

    def domain_get_fsinfo(self, domain: Domain, flags: int) -> tuple[list[DomainFsinfo], int]:
        """virDomainGetFSInfo: the file systems that the guest has mounted."""
        unsupported_flags(flags, 0, "qemuDomainGetFSInfo")
        with self.agent(domain, "virDomainGetFSInfo") as agent:
            listed = agent.tables("guest-get-fsinfo")
        disks = self.live(self.guests.find(domain)).disks
        found = [
            DomainFsinfo(
                shape.text(one, "mountpoint"),
                shape.text(one, "name"),
                shape.text(one, "type"),
                disk_aliases(one, disks),
            )
            for one in reversed(listed)
        ]
        return found, len(found)

    def domain_fsfreeze(self, domain: Domain, mountpoints: list[str], flags: int) -> int:
        """virDomainFSFreeze: how many file systems nobody writes to any more."""
        unsupported_flags(flags, 0, "qemuDomainFSFreeze")
        with self.agent(domain, "virDomainFSFreeze") as agent:
            if mountpoints:
                return _count(agent.execute("guest-fsfreeze-freeze-list", {"mountpoints": mountpoints}))
            return _count(agent.execute("guest-fsfreeze-freeze"))

    def domain_fsthaw(self, domain: Domain, mountpoints: list[str], flags: int) -> int:
        """virDomainFSThaw: all of them, whatever is named, as in libvirt."""
        unsupported_flags(flags, 0, "qemuDomainFSThaw")
        with self.agent(domain, "virDomainFSThaw") as agent:
            return _count(agent.execute("guest-fsfreeze-thaw"))

    def domain_fstrim(self, domain: Domain, mountpoint: str | None, minimum: int, flags: int) -> None:
        """virDomainFSTrim: give unused blocks back, in pieces of a number of bytes at least."""
        unsupported_flags(flags, 0, "qemuDomainFSTrim")
        if mountpoint is not None:
            text = "Specifying mount point is not supported for now"
            raise VirtError(c.VIR_ERR_ARGUMENT_UNSUPPORTED, text)
        with self.agent(domain, "virDomainFSTrim", inactive=_QEMU) as agent:
            agent.execute("guest-fstrim", {"minimum": minimum})

    def domain_set_user_password(self, domain: Domain, user: str | None, password: str | None, flags: int) -> None:
        """virDomainSetUserPassword."""
        unsupported_flags(flags, c.VIR_DOMAIN_PASSWORD_ENCRYPTED, "qemuDomainSetUserPassword")
        arguments = {
            "username": user or "",
            "password": base64.b64encode((password or "").encode()).decode(),
            "crypted": bool(flags & c.VIR_DOMAIN_PASSWORD_ENCRYPTED),
        }
        with self.agent(domain, "virDomainSetUserPassword") as agent:
            agent.execute("guest-set-user-password", arguments)

    def domain_get_guest_vcpus(self, domain: Domain, flags: int) -> list[TypedParam]:
        """virDomainGetGuestVcpus: the virtual CPUs as lists: all, those online, those that can be taken offline."""
        unsupported_flags(flags, 0, "qemuDomainGetGuestVcpus")
        with self.agent(domain, "virDomainGetGuestVcpus", inactive=_QEMU) as agent:
            listed = _vcpus(agent)
        sets = (
            ("vcpus", listed),
            ("online", {number for number, one in listed.items() if shape.truth(one, "online")}),
            ("offlinable", {number for number, one in listed.items() if shape.truth(one, "can-offline", False)}),
        )
        return [typed.string(name, format_ranges(numbers)) for name, numbers in sets]

    def domain_set_guest_vcpus(self, domain: Domain, cpus: str, state: int, flags: int) -> None:
        """virDomainSetGuestVcpus: let the guest take virtual CPUs on- or offline."""
        unsupported_flags(flags, 0, "qemuDomainSetGuestVcpus")
        wanted = BITMAP.parse(cpus)
        if state not in (0, 1):
            raise VirtError(c.VIR_ERR_INVALID_ARG, "unsupported state value")
        with self.agent(domain, "virDomainSetGuestVcpus", inactive=_QEMU) as agent:
            listed = _vcpus(agent)
            missing = wanted - listed.keys()
            if missing:
                text = f"guest is missing vCPUs '{format_ranges(missing)}'"
                raise VirtError(c.VIR_ERR_INVALID_ARG, text)
            for number in sorted(wanted):
                if not state and not shape.truth(listed[number], "can-offline", False):
                    raise VirtError(c.VIR_ERR_OPERATION_UNSUPPORTED, f"vCPU '{number}' is not offlinable")
            changes = [{"logical-id": number, "online": bool(state)} for number in sorted(wanted)]
            agent.execute("guest-set-vcpus", {"vcpus": changes})

    def domain_get_guest_info(self, domain: Domain, types: int, flags: int) -> list[TypedParam]:
        """virDomainGetGuestInfo: VIR_DOMAIN_GUEST_INFO_* groups, 0 for all that the agent knows."""
        unsupported_flags(flags, 0, "qemuDomainGetGuestInfo")
        unknown = types & ~sum(TYPES)
        if unknown:
            raise VirtError(c.VIR_ERR_INVALID_ARG, f"unsupported guest information types '0x{types:x}'")
        with self.agent(domain, "virDomainGetGuestInfo", inactive=_QEMU) as agent:
            return gather(agent, types, self.live(self.guests.find(domain)).disks)

    def domain_authorized_ssh_keys_get(self, domain: Domain, user: str, flags: int) -> list[str]:
        """virDomainAuthorizedSSHKeysGet."""
        unsupported_flags(flags, 0, "qemuDomainAuthorizedSSHKeysGet")
        with self.agent(domain, "virDomainAuthorizedSSHKeysGet", inactive=_QEMU) as agent:
            answer = agent.execute("guest-ssh-get-authorized-keys", {"username": user})
        return shape.texts(shape.as_table(answer, "keys"), "keys")

    def domain_authorized_ssh_keys_set(self, domain: Domain, user: str, keys: list[str], flags: int) -> None:
        """virDomainAuthorizedSSHKeysSet: replace, add (APPEND) or remove keys."""
        names = [f"VIR_DOMAIN_AUTHORIZED_SSH_KEYS_SET_{name}" for name in ("APPEND", "REMOVE")]
        self.one_of(flags, names, "virDomainAuthorizedSSHKeysSet")
        append, remove = c.VIR_DOMAIN_AUTHORIZED_SSH_KEYS_SET_APPEND, c.VIR_DOMAIN_AUTHORIZED_SSH_KEYS_SET_REMOVE
        unsupported_flags(flags, append | remove, "qemuDomainAuthorizedSSHKeysSet")
        with self.agent(domain, "virDomainAuthorizedSSHKeysSet", inactive=_QEMU) as agent:
            if flags & remove:
                agent.execute("guest-ssh-remove-authorized-keys", {"username": user, "keys": keys})
            else:
                arguments = {"username": user, "keys": keys, "reset": not flags & append}
                agent.execute("guest-ssh-add-authorized-keys", arguments)

    def domain_pm_suspend_for_duration(self, domain: Domain, target: int, duration: int, flags: int) -> None:
        """virDomainPMSuspendForDuration: the guest puts itself to sleep."""
        unsupported_flags(flags, 0, "qemuDomainPMSuspendForDuration")
        if duration:
            text = "Duration not supported. Use 0 for now"
            raise VirtError(c.VIR_ERR_ARGUMENT_UNSUPPORTED, text)
        command = _SUSPEND.get(target)
        if command is None:
            raise VirtError(c.VIR_ERR_INVALID_ARG, f"Unknown suspend target: {target}")
        with self.agent(domain, "virDomainPMSuspendForDuration", inactive=_QEMU) as agent:
            agent.tell(command)

    def domain_pm_wakeup(self, domain: Domain, flags: int) -> None:
        """virDomainPMWakeup."""
        unsupported_flags(flags, 0, "qemuDomainPMWakeup")
        with self._changing(domain, "virDomainPMWakeup") as (_, guest), guest.monitor() as monitor:
            monitor.execute("system_wakeup")

    def qemu_domain_agent_command(self, domain: Domain, command: str, timeout: int, flags: int) -> str:
        """virDomainQemuAgentCommand: the agent's whole answer.

        Args:
            domain: the guest.
            command: a command in JSON.
            timeout: how long it may take, in s; below 0, and 0: as long as any.
            flags: none are known.
        """
        unsupported_flags(flags, 0, "qemuDomainQemuAgentCommand")
        self.running(domain)
        try:
            message = shape.as_table(json.loads(command), "command")
        except ValueError as error:
            raise VirtError(c.VIR_ERR_INTERNAL_ERROR, f"cannot parse json {command}: {error}") from None
        special = {c.VIR_DOMAIN_QEMU_AGENT_COMMAND_DEFAULT: SYNC_SECONDS}
        seconds = special.get(timeout, float(timeout) if timeout > 0 else COMMAND_SECONDS)
        with self.agent(domain, "virDomainQemuAgentCommand") as agent:
            messages.mark(self.guest(self.guests.find(domain)), messages.AGENT)
            answer = agent.exchange(message, seconds)
        refused = answer.get("error")
        if isinstance(refused, dict):
            raise agent_error(str(message.get("execute", "")), refused)
        return json.dumps(answer, separators=(",", ":"))


def _vcpus(agent: Agent) -> dict[int, shape.Table]:
    return {shape.number(one, "logical-id"): one for one in agent.tables("guest-get-vcpus")}


def _count(answer: object) -> int:
    if not isinstance(answer, int):
        raise shape.ShapeError("'guest-fsfreeze' in data is no integer")
    return answer
