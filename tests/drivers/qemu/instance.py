"""One instance of the QEMU driver in the test's own process, and a guest that boots in a fraction of a second."""

import contextlib
import json
import os
import select
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from tests.guests.bootsector import MESSAGE, write_boot_disk
from tests.helpers.waiting import SECONDS, ends, wait_for
from virtd.drivers.base import Context, Event, Identity
from virtd.drivers.qemu.driver import QemuDriver
from virtd.drivers.qemu.guest import Guest
from virtd.errors import VirtError
from virtd.protocol.records import Domain
from virtd.state import locks, paths


class Instance:
    """A driver below a directory of its own, subscribed to life cycle and reboot events."""

    def __init__(self) -> None:
        # A short name: the guests' terminals and sockets lie below it.
        self.root = tempfile.mkdtemp(prefix="v-", dir="/tmp")
        os.chmod(self.root, 0o711)  # QEMU's user passes through it
        os.mkdir(f"{self.root}/out")
        os.chmod(f"{self.root}/out", 0o777)
        self._boots: dict[str, int] = {}
        self.driver = self.open()
        self.heard: list[Event] = []
        for event_id in (0, 1):
            self.driver.connect_domain_event_callback_register_any(event_id, None)

    def open(self) -> QemuDriver:
        """Another connection to the same instance."""
        pid = os.getpid()
        return QemuDriver(Context(paths.below(self.root), Identity(os.geteuid(), os.getegid(), pid), pid))

    def disk(self, name: str = "g", then: str = "serve") -> Path:
        """An image that boots, prints a line on the serial port, and does what is asked for."""
        return write_boot_disk(Path(self.root) / f"{name}.img", then=then)

    def xml(self, name: str = "g", then: str = "serve", *, more: str = "", devices: str = "") -> str:
        """A guest with that disk and a serial port."""
        return f"""
            <domain type='qemu'><name>{name}</name><memory unit='MiB'>16</memory>
              <os><type>hvm</type></os><features><acpi/></features>{more}
              <devices>
                <disk type='file'><driver name='qemu' type='raw'/><source file='{self.disk(name, then)}'/>
                  <target dev='hda' bus='ide'/></disk>
                <serial type='file'><source path='{self._output(name)}'/></serial>{devices}
              </devices></domain>"""

    def _output(self, name: str) -> str:
        return f"{self.root}/out/{name}"

    def wait_for_boot(self, name: str) -> None:
        """Wait until a guest has booted once more than when this was last called."""
        wanted = self._boots[name] = self._boots.get(name, 0) + 1
        output = Path(self._output(name))
        said = MESSAGE.encode()
        wait_for(lambda: output.read_bytes().count(said) >= wanted, f"guest '{name}' booting", directory=output.parent)

    def events(self, until: Callable[[list[tuple[object, ...]]], bool] = bool) -> list[tuple[object, ...]]:
        """The events since the last call: ('lifecycle', name, id, event, detail) or ('reboot', name, id).

        Args:
            until: when what has come is enough; it is waited for.
        """
        found: list[tuple[object, ...]] = []
        end = time.monotonic() + SECONDS
        while True:
            found += [_plain(event) for event in self.driver.read_events()]
            if until(found):
                return found
            assert self.wait_for_event(max(0, end - time.monotonic())), f"only {found} came"

    def wait_for_event(self, seconds: float = SECONDS) -> bool:
        """Wait until something may have happened; tells whether it has."""
        descriptor = self.driver.event_fd()
        assert descriptor is not None
        return bool(select.select([descriptor], [], [], seconds)[0])

    def supervisor(self, domain: Domain) -> int:
        """The pid of a guest's supervisor."""
        guest = self.driver.guest(self.driver.guests.find(domain))
        with open(guest.supervisor_path, encoding="ascii") as file:
            return int(json.load(file)["pid"])

    def qemu(self, domain: Domain) -> int:
        """The pid of a guest's QEMU."""
        status = self.driver.guests.find(domain).status
        assert status is not None
        assert status.process is not None
        return status.process.pid

    def _left(self) -> list[str]:
        """What there still is of guests, when those who clean up are done."""
        running = self.driver.guests.running
        for uuid in [name for name in os.listdir(running) if "." not in name]:
            _, holder = locks.probe(Guest(running, uuid, "").supervisor_path)
            if holder is not None:
                ends(holder.pid)
        assert [entry for entry in self.driver.guests.view() if entry.active] == []
        return [name for name in os.listdir(running) if not name.endswith(".last")]

    def close(self) -> None:
        """End what still runs; then nothing of any guest is left."""
        try:
            for entry in list(self.driver.guests.view()):
                if entry.active:
                    # One whose QEMU was killed may end by itself meanwhile.
                    with contextlib.suppress(VirtError):
                        self.driver.domain_destroy(entry.reference)
            assert self._left() == []
        finally:
            self.driver.close()
            shutil.rmtree(self.root)


def _plain(event: Event) -> tuple[object, ...]:
    # Newer events carry the guest and its arguments side by side, older ones in a structure of their own.
    _, *inner = event.values
    domain, *arguments = inner if isinstance(inner[0], Domain) else inner[0]
    return event.procedure.removeprefix("DOMAIN_EVENT_CALLBACK_").lower(), domain.name, domain.id, *arguments
