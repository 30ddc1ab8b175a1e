"""Pools that are iSCSI targets which QEMU reaches itself; their volumes are the target's units, and no devices here.

The tools of libiscsi ask the target: iscsi-ls(1) which units there are, iscsi-readcapacity16(1) how large they are.
Passphrases go to them in their environment.
"""

import re
from collections.abc import Sequence

from virtd import constants as c
from virtd.conf.storage import Pool, Volume
from virtd.conf.storage.source import Device, Host, Source
from virtd.drivers.storage import programs
from virtd.drivers.storage.backends.base import Backend, Surroundings, one_host
from virtd.drivers.storage.backends.iscsi import PORT
from virtd.errors import VirtError, unsupported_flags

_SECONDS = 30.0
_TARGET = re.compile(r"Target:(\S+) Portal:")
_UNIT = re.compile(r"Lun:(\d+)\s+Type:DIRECT_ACCESS")
_TOTAL = re.compile(r"Total size:(\d+)")


class IscsiDirectBackend(Backend):
    """An iSCSI target."""

    @classmethod
    def find_sources(cls, kind: str, spec: Source | None, surroundings: Surroundings, flags: int) -> list[Source]:
        unsupported_flags(flags, 0, "virStorageBackendISCSIDirectFindPoolSources")
        one_host(spec, "iscsi")
        assert spec is not None
        if spec.initiator is None:
            raise VirtError(c.VIR_ERR_CONFIG_UNSUPPORTED, "missing initiator IQN", domain=c.VIR_FROM_STORAGE)
        output = programs.run("iscsi-ls", ["-i", spec.initiator, f"iscsi://{_portal(spec)}"], seconds=_SECONDS)
        host = Host(name=spec.hosts[0].name, port=spec.hosts[0].port or PORT)
        return [
            Source(hosts=[host], devices=[Device(path=target)], initiator=spec.initiator)
            for target in _TARGET.findall(output)
        ]

    def show(self, shown: Pool) -> None:
        """The port that is used."""
        shown.source = shown.source.copy()
        shown.source.hosts = [Host(name=host.name, port=host.port or PORT) for host in shown.source.hosts]

    def sizes(self) -> tuple[int, int, int]:
        whole = sum(volume.capacity or 0 for volume in self.volumes())
        return whole, whole, 0

    def volumes(self) -> list[Volume]:
        found = []
        for unit in self._units():
            path = f"ip-{_portal(self.pool.source)}-iscsi-{self._target}-lun-{unit}"
            size = self._size(unit)
            volume = Volume(type="network", name=f"unit:0:0:{unit}", key=path, capacity=size, allocation=size)
            volume.target.path = path
            found.append(volume)
        return found

    def may_hold(self, path: str) -> bool:
        return path.startswith(f"ip-{_portal(self.pool.source)}-iscsi-{self._target}-")

    @property
    def _target(self) -> str:
        return self.pool.source.devices[0].path or ""

    def _units(self) -> list[str]:
        """The numbers of the target's units that are disks."""
        url = f"iscsi://{_portal(self.pool.source)}/{self._target}"
        # It fails as well if another target of the same server does not let it in.
        found = self._disks(self._ask("iscsi-ls", "-s", url, accept=range(256)))
        return found or self._disks(self._ask("iscsi-ls", "-s", url))

    def _disks(self, output: str) -> list[str]:
        section = ""
        found = []
        for line in output.splitlines():
            target, unit = _TARGET.match(line), _UNIT.match(line)
            section = target[1] if target is not None else section
            if unit is not None and section == self._target:
                found.append(unit[1])
        return found

    def _size(self, unit: str) -> int:
        output = self._ask("iscsi-readcapacity16", f"iscsi://{_portal(self.pool.source)}/{self._target}/{unit}")
        match = _TOTAL.search(output)
        if match is None:
            text = f"Failed to get capacity of lun: {output.strip()}"
            raise VirtError(c.VIR_ERR_INTERNAL_ERROR, text, domain=c.VIR_FROM_STORAGE)
        return int(match[1])

    def _ask(self, tool: str, *arguments: str, accept: Sequence[int] = (0,)) -> str:
        source = self.pool.source
        environment = {}
        if source.auth is not None:
            if source.auth.type != "chap":
                text = "iscsi-direct pool only supports 'chap' auth type"
                raise VirtError(c.VIR_ERR_CONFIG_UNSUPPORTED, text, domain=c.VIR_FROM_STORAGE)
            assert source.auth.secret is not None
            value = self.surroundings.secret(source.auth.secret, c.VIR_SECRET_USAGE_TYPE_ISCSI)
            environment["LIBISCSI_CHAP_USERNAME"] = source.auth.username or ""
            environment["LIBISCSI_CHAP_PASSWORD"] = value.decode(errors="surrogateescape")
        command = ["-i", source.initiator or "", *arguments]
        return programs.run(tool, command, accept=accept, seconds=_SECONDS, environment=environment)


def _portal(source: Source) -> str:
    host = source.hosts[0]
    name = host.name or ""
    return f"[{name}]:{host.port or PORT}" if ":" in name else f"{name}:{host.port or PORT}"
