"""Pools that are iSCSI targets, logged in to while the pool is active; their volumes are the target's units.

iscsiadm(8) does the work, with the kernel as the initiator. A passphrase for CHAP has to be told it on its command
line, for it reads none otherwise; it is shown in no message.
"""

import os
import re
import zlib
from collections.abc import Sequence

from virtd import constants as c
from virtd.conf.storage.source import Auth, Device, Host, Source
from virtd.drivers.storage import programs
from virtd.drivers.storage.backends import scsi
from virtd.drivers.storage.backends.base import Surroundings, one_host
from virtd.drivers.storage.backends.scsi import ScsiBackend
from virtd.errors import VirtError, unsupported_flags

PORT = 3260
_SECONDS = 120.0  # for a server that is gone; iscsiadm gives up before
_SESSION = re.compile(r"\S+ \[(\d+)\] (\S+),\S* (\S+)")
_NONE_FOUND = 21  # iscsiadm's status: there are no sessions, or records
_NO_RECORD = (0, _NONE_FOUND)


class IscsiBackend(ScsiBackend):
    """An iSCSI target."""

    @classmethod
    def find_sources(cls, kind: str, spec: Source | None, surroundings: Surroundings, flags: int) -> list[Source]:
        unsupported_flags(flags, 0, "virStorageBackendISCSIFindPoolSources")
        one_host(spec, "iscsi")
        assert spec is not None
        found = []
        arguments = ["--mode", "discovery", "--type", "sendtargets", "--portal", _portal(spec)]
        if spec.initiator is not None:
            arguments += ["--interface", _interface(spec.initiator)]
        for line in _run([*arguments, "--op", "nonpersistent"]).splitlines():
            target = line.strip().partition(" ")[2]
            if target:
                host = Host(name=spec.hosts[0].name, port=spec.hosts[0].port or PORT)
                source = Source(hosts=[host], devices=[Device(path=target)], initiator=spec.initiator)
                found.append(source)
        return found

    @property
    def _target(self) -> str:
        return self.pool.source.devices[0].path or ""

    def start(self) -> None:
        source = self.pool.source
        text = None
        if not source.hosts or not source.hosts[0].name:
            text = "missing source host"
        elif len(source.devices) != 1:
            text = "missing source device"
        if text is not None:
            raise VirtError(c.VIR_ERR_INTERNAL_ERROR, text, domain=c.VIR_FROM_STORAGE)
        credentials = [] if source.auth is None else self._credentials(source.auth)
        if self._session() is not None:
            return
        node = ["--mode", "node", "--portal", _portal(source), "--targetname", self._target]
        if source.initiator is not None:
            node += ["--interface", _interface(source.initiator)]
        _run([*node, "--op", "new"])
        # It is the pool that logs in, not whatever looks for targets when the machine starts.
        _update(node, "node.startup", "manual")
        for name, value in credentials:
            _update(node, f"node.session.auth.{name}", value)
        _run([*node, "--login"])

    def stop(self) -> None:
        if self._session() is not None:
            node = ["--mode", "node", "--portal", _portal(self.pool.source), "--targetname", self._target]
            _run([*node, "--logout"])
            _run([*node, "--op", "delete"], accept=_NO_RECORD)

    def refresh(self) -> None:
        _run(["--mode", "session", "-r", self._active_session(), "-R"])
        super().refresh()

    def _credentials(self, auth: Auth) -> list[tuple[str, str]]:
        if auth.type != "chap":
            text = "iscsi pool only supports 'chap' auth type"
            raise VirtError(c.VIR_ERR_CONFIG_UNSUPPORTED, text, domain=c.VIR_FROM_STORAGE)
        assert auth.secret is not None
        value = self.surroundings.secret(auth.secret, c.VIR_SECRET_USAGE_TYPE_ISCSI)
        passphrase = value.decode(errors="surrogateescape")
        return [("authmethod", "CHAP"), ("username", auth.username or ""), ("password", passphrase)]

    def _session(self) -> str | None:
        """The number of the session with the target; None if there is none."""
        for line in _run(["--mode", "session"], accept=_NO_RECORD).splitlines():
            match = _SESSION.match(line)
            if match is not None and match[3] == self._target:
                return match[1]
        return None

    def _active_session(self) -> str:
        session = self._session()
        if session is None:
            text = f"cannot find iscsiadm session: {self._target}"
            raise VirtError(c.VIR_ERR_INTERNAL_ERROR, text, domain=c.VIR_FROM_STORAGE)
        return session

    def host(self) -> int:
        path = f"{scsi.SYS}/class/iscsi_session/session{self._active_session()}/device"
        # …/hostN/sessionM: the adapter that the session is.
        match = re.search(r"/host(\d+)/", os.path.realpath(path) + "/")
        if match is None:
            text = f"Failed to get host number for iSCSI session with path '{path}'"
            raise VirtError(c.VIR_ERR_INTERNAL_ERROR, text, domain=c.VIR_FROM_STORAGE)
        return int(match[1])


def _run(arguments: Sequence[str], accept: Sequence[int] = (0,), hidden: str | None = None) -> str:
    shown = None if hidden is None else {hidden: "…"}
    return programs.run("iscsiadm", arguments, accept=accept, seconds=_SECONDS, shown=shown)


def _update(node: Sequence[str], name: str, value: str) -> None:
    hidden = value if name.endswith("password") and value else None
    _run([*node, "--op", "update", "--name", name, "--value", value], hidden=hidden)


def _portal(source: Source) -> str:
    host = source.hosts[0]
    name = host.name or ""
    return f"[{name}]:{host.port or PORT}" if ":" in name else f"{name}:{host.port or PORT}"


def _interface(initiator: str) -> str:
    """iscsiadm's interface for an initiator's name, which is made if there is none."""
    for line in _run(["--mode", "iface"]).splitlines():
        name, _, rest = line.partition(" ")
        if rest.split(",")[-1:] == [initiator]:
            return name
    name = f"libvirt-iface-{zlib.crc32(initiator.encode()):08x}"
    interface = ["--mode", "iface", "--interface", name]
    _run([*interface, "--op", "new"])
    _run([*interface, "--op", "update", "--name", "iface.initiatorname", "--value", initiator])
    return name
