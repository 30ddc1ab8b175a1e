"""QEMU without virtd, for the tests of the guests themselves: one process, its serial port, its monitor."""

from __future__ import annotations

import json
import os
import select
import socket
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Any

__all__ = ["Qemu", "disk"]


class Qemu:
    """A running QEMU, ended when the `with` block ends."""

    def __init__(self, *options: str, machine: str = "pc", memory_mib: int = 32) -> None:
        self.output = b""  # of the serial port, so far
        ours, monitor = socket.socketpair()
        self._serial, serial = socket.socketpair()
        with monitor, serial:
            self.process = subprocess.Popen(
                [
                    "qemu-system-x86_64", "-nodefaults", "-no-user-config", "-accel", "tcg", "-machine", machine,
                    "-m", str(memory_mib), "-device", "VGA", "-display", "none", "-no-shutdown", "-S",
                    "-chardev", f"socket,id=monitor,fd={monitor.fileno()}", "-mon", "chardev=monitor,mode=control",
                    "-chardev", f"socket,id=serial,fd={serial.fileno()}", "-serial", "chardev:serial",
                    *options,
                ],
                stdin=subprocess.DEVNULL,
                pass_fds=[monitor.fileno(), serial.fileno()],
            )  # fmt: skip
        ours.settimeout(20)
        self._monitor = ours.makefile("rw", encoding="utf-8")
        ours.close()
        self._events: list[dict[str, Any]] = []
        self._read()  # the greeting
        self.command("qmp_capabilities")

    def __enter__(self) -> Qemu:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.process.kill()
        self.process.wait()
        self._monitor.close()
        self._serial.close()

    def command(self, name: str, **arguments: Any) -> Any:
        """A QMP command: what it returns. Raises AssertionError if it fails."""
        self._monitor.write(json.dumps({"execute": name, "arguments": arguments}) + "\n")
        self._monitor.flush()
        while "return" not in (reply := self._read()):
            assert "error" not in reply, reply
            self._events.append(reply)
        return reply["return"]

    def event(self, name: str) -> dict[str, Any]:
        """Wait for a QMP event of this name that nobody has waited for yet; returns its data. Raises TimeoutError."""
        while True:
            for event in self._events:
                if event["event"] == name:
                    self._events.remove(event)
                    data: dict[str, Any] = event.get("data", {})
                    return data
            self._events.append(self._read())

    def _read(self) -> dict[str, Any]:
        line = self._monitor.readline()
        assert line, f"QEMU has ended: {self.process.wait(5)}"
        message: dict[str, Any] = json.loads(line)
        return message

    def send(self, data: bytes) -> None:
        """Write to the guest's serial port."""
        self._serial.sendall(data)

    def until(self, text: bytes, seconds: float = 30) -> None:
        """Read the serial port until `text` has come. Raises AssertionError after `seconds`."""
        deadline = time.monotonic() + seconds
        while text not in self.output:
            ready, _, _ = select.select([self._serial], [], [], max(0, deadline - time.monotonic()))
            assert ready, f"{text!r} has not come in {seconds} s, but {self.output!r}"
            data = os.read(self._serial.fileno(), 4096)
            assert data, f"QEMU has ended, {text!r} has not come, but {self.output!r}"
            self.output += data


def disk(path: Path) -> tuple[str, ...]:
    """Options for a raw disk."""
    return ("-drive", f"file={path},format=raw,if=none,id=disk", "-device", "virtio-blk-pci,drive=disk")
