"""The two servers, each below a directory of its own, with locks, checks and confinement as they are by default."""

import contextlib
import os
import signal
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import libvirt

TOP = Path(__file__).resolve().parents[2]
PREFIX = "bench-"


class Server:
    """One of the two."""

    name = ""
    client = ""  # the command line client that comes with it

    def __init__(self, root: str) -> None:
        os.mkdir(root)
        self.root = root
        self.uri = ""
        self.process: subprocess.Popen[bytes] | None = None
        self._thread = threading.local()

    def connect(self) -> libvirt.virConnect:
        """Open a connection, as clients do."""
        return libvirt.open(self.uri)

    def start(self) -> float:
        """Run the server, and wait until it answers. Returns the seconds until then.

        The answer that is waited for is that to GetCapabilities: it needs the emulators to be known.
        """
        begin = time.monotonic()
        with open(f"{self.root}/output", "ab") as output:
            self.process = subprocess.Popen(self.command(), stdout=output, stderr=output, stdin=subprocess.DEVNULL)
        while True:
            with contextlib.suppress(libvirt.libvirtError):
                self.connect().getCapabilities()
                return time.monotonic() - begin
            if self.process.poll() is not None or time.monotonic() - begin > 180:
                raise RuntimeError(f"{self.name} does not answer: {Path(self.root, 'output').read_text()[-2000:]}")
            time.sleep(0.002)

    def stop(self) -> None:
        """End the server; its guests stay."""
        if self.process is not None:
            self.process.terminate()
            self.process.wait()
            self.process = None

    def clear(self) -> None:
        """End and forget all guests of the benchmark."""
        names = [domain.name() for domain in self.connect().listAllDomains()]
        # libvirtd takes its time to destroy a guest, but not its processors.
        with ThreadPoolExecutor(16) as several:
            list(several.map(self._remove, [name for name in names if name.startswith(PREFIX)]))

    def _remove(self, name: str) -> None:
        with contextlib.suppress(libvirt.libvirtError):
            domain = self._own().lookupByName(name)
            if domain.isActive():
                domain.destroy()
            if domain.isPersistent():
                domain.undefine()

    def _own(self) -> libvirt.virConnect:
        """A connection of this thread's own."""
        if not hasattr(self._thread, "connection"):
            self._thread.connection = self.connect()
        return self._thread.connection

    def command(self) -> list[str]:
        raise NotImplementedError

    def pids(self) -> list[int]:
        """The processes that are the server: not guests and what belongs to them."""
        raise NotImplementedError


class Virtd(Server):
    name = "virtd"
    client = f"{TOP}/.venv/bin/virtsh"
    program = f"{TOP}/.venv/bin/virtd"

    def __init__(self, root: str) -> None:
        super().__init__(root)
        self.uri = f"qemu+unix:///system?socket={root}/run/libvirt/libvirt-sock"

    def command(self) -> list[str]:
        return [self.program, "--root", self.root]

    def pids(self) -> list[int]:
        """The accept loop first, then its workers."""
        assert self.process is not None
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text(encoding="ascii")
        return [self.process.pid, *map(int, children.split())]


class Libvirtd(Server):
    name = "libvirtd"
    client = "virsh"

    def __init__(self, root: str) -> None:
        super().__init__(root)
        self.uri = f"qemu+unix:///system?socket={root}/libvirt-sock"
        Path(f"{root}/libvirtd.conf").write_text(
            f'unix_sock_dir = "{root}"\nauth_unix_rw = "none"\nauth_unix_ro = "none"\n'
            "max_clients = 5000\nmax_queued_clients = 1000\n",
            encoding="ascii",
        )
        # Without it every start needs a virtlogd beside libvirtd.
        Path(f"{root}/qemu.conf").write_text('stdio_handler = "file"\n', encoding="ascii")
        # The machine's own libvirtd is not touched: this one has directories of its own where it keeps its state, in a
        # mount namespace. They are not on a tmpfs: what it writes for good is to reach the same disk as virtd's.
        private = ("/run/libvirt", "/var/lib/libvirt", "/var/cache/libvirt", "/var/log/libvirt", "/etc/libvirt")
        lines = ["set -e", f"mkdir -p {root}/etc/libvirt/qemu"]
        for directory in private:
            lines += [f"mkdir -p {directory} {root}{directory}", f"mount --bind {root}{directory} {directory}"]
        lines += [f"cp {root}/qemu.conf /etc/libvirt/", f"exec libvirtd -f {root}/libvirtd.conf -p {root}/pid"]
        Path(f"{root}/start").write_text("\n".join(lines) + "\n", encoding="utf-8")

    def command(self) -> list[str]:
        return ["unshare", "--mount", "sh", f"{self.root}/start"]

    def pids(self) -> list[int]:
        assert self.process is not None
        return [self.process.pid]


def stop_all(servers: list[Server]) -> None:
    """End the guests of the benchmark and both servers, whatever happened before."""
    for server in servers:
        if server.process is not None and server.process.poll() is None:
            with contextlib.suppress(libvirt.libvirtError):
                server.clear()
        server.stop()
        if server.process is not None:
            server.process.send_signal(signal.SIGKILL)
