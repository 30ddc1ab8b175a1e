"""Pools of RADOS, whose volumes are RBD images, which QEMU reaches itself.

rbd(8) and ceph(8) are asked in their JSON form, and told all they need on the command line: what the machine's own
configuration says counts for nothing. The key goes to them in memory.
"""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from virtd import constants as c
from virtd.conf.storage import Volume
from virtd.drivers.storage import programs
from virtd.drivers.storage.backends.base import Backend
from virtd.errors import VirtError, unsupported_flags
from virtd.state import files

_SECONDS = 30  # that monitors and storage daemons are waited for, as by libvirt
_TIMEOUTS = ("client-mount-timeout", "rados-mon-op-timeout", "rados-osd-op-timeout")
_DELETE_FLAGS = c.VIR_STORAGE_VOL_DELETE_ZEROED | c.VIR_STORAGE_VOL_DELETE_WITH_SNAPSHOTS


class RbdBackend(Backend):
    """A pool of RADOS."""

    @property
    def _name(self) -> str:
        return self.pool.source.name or ""

    def sizes(self) -> tuple[int, int, int]:
        report = self._ask("ceph", "df")
        try:
            [pool] = [one for one in report["pools"] if one["name"] == self._name]
            used = pool["stats"].get("stored", pool["stats"]["bytes_used"])
            return int(report["stats"]["total_bytes"]), int(used), int(report["stats"]["total_avail_bytes"])
        except (ValueError, LookupError, TypeError):
            raise _odd("ceph", report) from None

    def volumes(self) -> list[Volume]:
        report = self._ask("rbd", "ls", "--long", self._name)
        try:
            return [self._volume(row["image"], int(row["size"])) for row in report if "snapshot" not in row]
        except (ValueError, LookupError, TypeError):
            raise _odd("rbd", report) from None

    def described(self, volume: Volume) -> Volume:
        """As it is listed, with what is allocated of it, where that is known without reading all of it."""
        report = self._ask("rbd", "info", f"{self._name}/{volume.name}")
        if "fast-diff" in report.get("features", ()) and "fast diff invalid" not in report.get("flags", ()):
            usage = self._ask("rbd", "du", f"{self._name}/{volume.name}")
            found = [row["used_size"] for row in usage.get("images", ()) if "snapshot" not in row]
            if len(found) == 1:
                volume.allocation = int(found[0])
        return volume

    def _volume(self, name: str, size: int) -> Volume:
        volume = Volume(type="network", name=name, capacity=size, allocation=size)
        volume.key = volume.target.path = f"{self._name}/{name}"
        volume.target.format = "raw"
        return volume

    def may_hold(self, path: str) -> bool:
        return path.startswith(f"{self._name}/")

    def place(self, volume: Volume) -> None:
        text = None
        if volume.target.format not in (None, "raw"):
            text = "only RAW volumes are supported by this storage pool"
        elif volume.target.encryption is not None:
            text = "storage pool does not support encrypted volumes"
        if text is not None:
            raise VirtError(c.VIR_ERR_CONFIG_UNSUPPORTED, text, domain=c.VIR_FROM_STORAGE)
        volume.type = "network"
        volume.target.path = f"{self._name}/{volume.name}"

    def create(self, volume: Volume, flags: int) -> None:
        unsupported_flags(flags, 0, "virStorageBackendRBDBuildVol")
        self._do("create", "--size", f"{volume.capacity}B", f"{self._name}/{volume.name}")

    def copy(self, volume: Volume, original: Volume | None, flags: int) -> bool:
        """As a clone of a protected snapshot, which shares what it does not change."""
        if original is None:
            text = "storage pool does not support volume creation from an existing volume"
            raise VirtError(c.VIR_ERR_NO_SUPPORT, text, domain=c.VIR_FROM_STORAGE)
        unsupported_flags(flags, 0, "virStorageBackendRBDBuildVolFrom")
        self.place(volume)
        snapshot = f"{original.path}@libvirt-{os.urandom(4).hex()}"
        self._do("snap", "create", snapshot)
        self._do("snap", "protect", snapshot)
        self._do("clone", snapshot, volume.path)
        if (volume.capacity or 0) > (original.capacity or 0):
            self._do("resize", "--size", f"{volume.capacity}B", volume.path)
        return True

    def remove(self, volume: Volume, flags: int) -> None:
        unsupported_flags(flags, _DELETE_FLAGS, "virStorageBackendRBDDeleteVol")
        if flags & c.VIR_STORAGE_VOL_DELETE_ZEROED:
            text = "This storage backend does not support zeroed removal of volumes"
            raise VirtError(c.VIR_ERR_NO_SUPPORT, text, domain=c.VIR_FROM_STORAGE)
        if flags & c.VIR_STORAGE_VOL_DELETE_WITH_SNAPSHOTS:
            for snapshot in self._ask("rbd", "snap", "ls", volume.path):
                if str(snapshot.get("protected")) == "true":
                    self._do("snap", "unprotect", f"{volume.path}@{snapshot['name']}")
            self._do("snap", "purge", volume.path)
        self._do("rm", volume.path)

    def resize(self, volume: Volume, capacity: int, flags: int) -> None:
        unsupported_flags(flags, 0, "virStorageBackendRBDResizeVol")
        self._do("resize", "--size", f"{capacity}B", "--allow-shrink", volume.path)

    # The tools

    def _do(self, *command: str) -> None:
        with self._options() as (options, keep):
            quiet = ["--no-progress"] if command[0] in ("rm", "resize") else []
            programs.run("rbd", [*options, *command, *quiet], keep=keep)

    def _ask(self, program: str, *command: str) -> Any:
        with self._options() as (options, keep):
            output = programs.run(program, [*options, *command, "--format", "json"], keep=keep)
        try:
            return json.loads(output)
        except ValueError:
            raise _odd(program, output) from None

    @contextmanager
    def _options(self) -> Iterator[tuple[list[str], list[int]]]:
        """How to reach the cluster, and the descriptors that go with it."""
        source = self.pool.source
        options = [
            "--conf",
            "/dev/null",
            "--mon-host",
            ",".join(_monitor(host.name, host.port) for host in source.hosts),
        ]
        options += [f"--{name}={_SECONDS}" for name in _TIMEOUTS]
        options += [f"--{option.name}={option.value}" for option in self.pool.ceph_options]
        if source.auth is None:
            yield [*options, "--auth-supported", "none"], []
            return
        assert source.auth.secret is not None
        value = self.surroundings.secret(source.auth.secret, c.VIR_SECRET_USAGE_TYPE_CEPH)
        descriptor = os.memfd_create("ceph-key", os.MFD_CLOEXEC)
        try:
            # The secret's value is the key itself, where the file holds it in base64.
            files.write_all(descriptor, _encoded(value))
            key = ["--id", source.auth.username or "", "--keyfile", f"/proc/self/fd/{descriptor}"]
            yield [*options, "--auth-supported", "cephx", *key], [descriptor]
        finally:
            os.close(descriptor)


def _encoded(value: bytes) -> bytes:
    import base64

    return base64.b64encode(value)


def _monitor(name: str | None, port: int | None) -> str:
    shown = f"[{name}]" if ":" in (name or "") else name or ""
    return f"{shown}:{port}" if port else shown


def _odd(program: str, answer: object) -> VirtError:
    text = f"'{program}' answered what cannot be understood: {str(answer)[:200]}"
    return VirtError(c.VIR_ERR_INTERNAL_ERROR, text, domain=c.VIR_FROM_STORAGE)
