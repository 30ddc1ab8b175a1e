"""Where a guest's agent is, and when it may be asked."""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager

from virtd import constants as c
from virtd.conf.domain import Domain as Config
from virtd.conf.domain.chardev import Channel, UnixSource
from virtd.drivers.qemu import shape
from virtd.drivers.qemu.agent.client import SYNC_SECONDS, AgentClient
from virtd.drivers.qemu.changes import Changes
from virtd.drivers.qemu.guest import Control
from virtd.drivers.qemu.guests import Entry
from virtd.drivers.qemu.monitor import ask
from virtd.errors import VirtError, unsupported_flags
from virtd.protocol.records import Domain, DomainInterface, DomainIpAddr
from virtd.state import files

NAME = "org.qemu.guest_agent.0"
ADDRESS_TYPES = {"ipv4": c.VIR_IP_ADDR_TYPE_IPV4, "ipv6": c.VIR_IP_ADDR_TYPE_IPV6}


class Agent(AgentClient):
    """The agent of one guest, with what several calls ask of it."""

    def tables(self, command: str) -> list[shape.Table]:
        """The tables that a command answers."""
        return shape.as_tables(self.execute(command), command)

    def interfaces(self) -> list[DomainInterface]:
        """The guest's interfaces with their addresses."""
        found = []
        for one in self.tables("guest-network-get-interfaces"):
            addresses = [
                DomainIpAddr(
                    ADDRESS_TYPES.get(shape.text(ip, "ip-address-type"), c.VIR_IP_ADDR_TYPE_IPV4),
                    shape.text(ip, "ip-address"),
                    shape.number(ip, "prefix") & 0xFFFFFFFF,
                )
                for ip in shape.tables(one, "ip-addresses", [])
            ]
            found.append(
                DomainInterface(shape.text(one, "name"), shape.text(one, "hardware-address", "") or None, addresses)
            )
        return found


class AgentUser(Changes):
    """Base of the parts that ask guest agents."""

    @contextmanager
    def agent(self, domain: Domain, call: str, *, inactive: int = c.VIR_FROM_DOMAIN) -> Iterator[Agent]:
        """A conversation with a guest's agent.

        Args:
            domain: the guest.
            call: libvirt's name of the call.
            inactive: the domain (VIR_FROM_*) of the error for a guest that does not run: not the same in all calls.

        Raises:
            VirtError: VIR_ERR_OPERATION_INVALID, the guest does not run, or is paused; VIR_ERR_ARGUMENT_UNSUPPORTED,
                it has no channel for an agent; VIR_ERR_AGENT_UNRESPONSIVE.
        """
        entry = self.guests.find(domain)
        if entry.status is None:
            raise VirtError(c.VIR_ERR_OPERATION_INVALID, "domain is not running", domain=inactive)
        if entry.status.state != c.VIR_DOMAIN_RUNNING:
            raise VirtError(c.VIR_ERR_OPERATION_INVALID, "domain is not running", domain=c.VIR_FROM_QEMU)
        found = _channel(self.live(entry))
        if found is None or not isinstance(found.source, UnixSource) or found.source.path is None:
            text = "QEMU guest agent is not configured"
            raise VirtError(c.VIR_ERR_ARGUMENT_UNSUPPORTED, text, domain=c.VIR_FROM_QEMU)
        self._check_connected(entry, found)
        patience = self._patience(entry)
        seconds = SYNC_SECONDS if patience is None else min(SYNC_SECONDS, patience)
        guest, path = self.guest(entry), found.source.path

        def connect(anew: bool) -> socket.socket:
            with Control(guest) as control:
                return control.channel(path, anew=anew)

        with Agent(connect, f"{guest.directory}/agent.lock", seconds, patience) as agent:
            yield agent

    def domain_agent_set_response_timeout(self, domain: Domain, timeout: int, flags: int) -> int:
        """virDomainAgentSetResponseTimeout: how long the agent may take to answer each of the calls below.

        Args:
            domain: the guest.
            timeout: in s; or VIR_DOMAIN_AGENT_RESPONSE_TIMEOUT_BLOCK, _DEFAULT, _NOWAIT.
            flags: none are known.
        """
        unsupported_flags(flags, 0, "qemuDomainAgentSetResponseTimeout")
        if timeout < c.VIR_DOMAIN_AGENT_RESPONSE_TIMEOUT_BLOCK:
            least = c.VIR_DOMAIN_AGENT_RESPONSE_TIMEOUT_BLOCK
            text = f"guest agent timeout '{timeout}' is less than the minimum '{least}'"
            raise VirtError(c.VIR_ERR_INVALID_ARG, text)
        call = "virDomainAgentSetResponseTimeout"
        with self.held(domain, call) as entry, self.definitions_locked(call):
            path = self._timeout_path(entry)
            files.make_directory(os.path.dirname(path))
            files.replace(path, b"%d" % timeout, durable=False)
        return 0

    def _timeout_path(self, entry: Entry) -> str:
        """Where it stands how long a guest's agent may take: it goes with the guest, or with the machine's power."""
        if entry.active:
            return f"{self.guest(entry).directory}/agent-timeout"
        return f"{self.guests.running}-agents/{entry.uuid}"

    def _patience(self, entry: Entry) -> float | None:
        """How long the agent may take for an answer in s; None: as long as is usual."""
        for one in (entry, entry._replace(status=None)):
            content = files.read(self._timeout_path(one))
            if content is not None:
                timeout = int(content)
                special = {
                    c.VIR_DOMAIN_AGENT_RESPONSE_TIMEOUT_BLOCK: None,
                    c.VIR_DOMAIN_AGENT_RESPONSE_TIMEOUT_DEFAULT: SYNC_SECONDS,
                }
                return special.get(timeout, float(timeout))
        return None

    def _check_connected(self, entry: Entry, found: Channel) -> None:
        """Refuse to wait for an agent when no program of the guest has opened the channel."""
        assert entry.status is not None
        known = entry.status.channels.get(found.info.alias or "")
        if known is not None:
            if known[1] != "connected":
                raise VirtError(
                    c.VIR_ERR_AGENT_UNRESPONSIVE, "QEMU guest agent is not connected", domain=c.VIR_FROM_QEMU
                )
            return
        # It was plugged in while the guest ran.
        (answer,) = ask.ask(self.guest(entry), [("query-chardev", None)])
        label = f"char{found.info.alias}"
        for one in shape.as_tables(answer, "query-chardev"):
            if shape.text(one, "label") == label and not shape.truth(one, "frontend-open"):
                text = "QEMU guest agent is not connected"
                raise VirtError(c.VIR_ERR_AGENT_UNRESPONSIVE, text, domain=c.VIR_FROM_QEMU)


def _channel(config: Config) -> Channel | None:
    return next((one for one in config.channels if one.name == NAME), None)
