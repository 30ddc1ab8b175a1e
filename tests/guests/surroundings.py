"""What the devices of a guest's XML need on the host: files, loop devices, servers, links; made below a directory.

furnish() rewrites a document so that its paths lie there, and makes what is there. What cannot be made (devices of
the host, drivers that are not installed) is told, so that a start which is refused for that is not taken for a
failure. Links and addresses are made in the network namespace that this runs in: run it in one of its own.
"""

import functools
import os
import pty
import shutil
import signal
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

from lxml import etree

from tests.helpers import images

Element = etree._Element
IMAGE_SIZE = 1 << 20
_MOST_MEMORY = 4 << 20  # KiB that is really taken
_QEMU_MODULES = "/usr/lib/x86_64-linux-gnu/qemu"
# Protocols whose QEMU driver is a module of its own.
_MODULES = {"http": "curl", "https": "curl", "ftp": "curl", "ftps": "curl", "tftp": "curl"}
_CODE = ("/usr/share/OVMF/OVMF_CODE_4M.fd", "/usr/share/OVMF/OVMF_CODE.fd")
_VARIABLES = ("/usr/share/OVMF/OVMF_VARS_4M.fd", "/usr/share/OVMF/OVMF_VARS.fd")
_BIOS = "/usr/share/seabios/bios-256k.bin"
# Elements with a character device as their source.
_PORTS = ("serial", "parallel", "console", "channel", "smartcard", "redirdev", "backend")


class Surroundings:
    """The surroundings of one guest at a time.

    Args:
        folder: where files are made; QEMU's user must be able to get there.
        network: makes a network of a name, if there is none.
        secrets: values of secrets by uuid or usage, for images that are encrypted.
    """

    def __init__(self, folder: str, network: Callable[[str], None], secrets: dict[str, str] | None = None) -> None:
        self._folder = folder
        self._network = network
        self._secrets = secrets or {}
        self._count = 0
        self._undo: list[Callable[[], object]] = []
        self._bound: set[str | None] = set()
        self.missing: list[str] = []

    def furnish(self, xml: str) -> str:
        """Make what a document's devices need; returns the document that says where. `missing` tells what could not."""
        self.missing = []
        root = etree.fromstring(xml.encode(), etree.XMLParser(resolve_entities=False, no_network=True))
        self._bound = {
            source.get("service") for source in root.iter("source") if source.get("mode") == "bind"
        }  # by QEMU itself
        if root.find("memoryBacking/allocation[@mode='immediate']") is not None and _memory(root) > _MOST_MEMORY:
            self.missing.append("so much memory")
        for system in root.iter("os"):
            self._system(system)
        for disk in root.iter("disk"):
            self._disk(disk)
        for interface in root.iter("interface"):
            self._interface(interface)
        for name in _PORTS:
            for port in root.iter(name):
                self._port(port)
        for graphics in root.iter("graphics"):
            self._graphics(graphics)
        self._others(root)
        if root.find("devices/hostdev/source[@protocol='iscsi']") is not None:
            self.missing.append("QEMU's block driver for iscsi")
        for device, reason in (
            ("hostdev", "a device of the host"),
            ("vsock", "/dev/vhost-vsock"),
            ("hugepages", "huge pages"),
        ):
            if any(one.find("source[@protocol='iscsi']") is None for one in root.iter(device)):
                self.missing.append(reason)
        return etree.tostring(root, encoding="unicode")

    def clear(self) -> None:
        """Remove everything."""
        while self._undo:
            self._undo.pop()()

    def _file(self, name: str, content: bytes = b"", size: int = 0) -> str:
        """A file of its own, called like another one."""
        self._count += 1
        path = f"{self._folder}/{self._count}-{os.path.basename(name.rstrip('/')) or 'file'}"[:100].replace(":", "_")
        Path(path).write_bytes(content)
        if size:
            os.truncate(path, size)
        os.chmod(path, 0o666)
        self._undo.append(lambda: Path(path).unlink(missing_ok=True))
        return path

    def _path(self, name: str) -> str:
        """Where a file could be, but is not."""
        path = self._file(name)
        os.unlink(path)
        return path

    def _directory(self) -> str:
        path = self._path("directory")
        os.mkdir(path)
        Path(path, "a").write_text("a")
        os.chmod(path, 0o777)
        self._undo.append(lambda: shutil.rmtree(path, ignore_errors=True))
        return path

    def _image(self, name: str, kind: str, size: int, source: Element, below: str | None = None) -> str:
        """An image of a format, encrypted where its source says so, above another one."""
        if kind in ("raw", "fat", "aio", "iso") and source.find("encryption") is None:
            return self._file(name, size=size)
        path = self._path(name)
        command = ["-f", {"vhd": "vhdx"}.get(kind, kind)]
        secret = source.find("encryption/secret")
        if secret is not None:
            # Keys are derived in no time: this is not about security.
            command[1] = "luks" if kind == "raw" else kind
            prefix = "" if kind == "raw" else "encrypt."
            more = "" if kind == "raw" else "encrypt.format=luks,"
            value = self._secrets.get(secret.get("uuid") or secret.get("usage") or "", "letmein")
            command += ["--object", f"secret,id=s,data={value}"]
            command += ["-o", f"{more}{prefix}key-secret=s,{prefix}iter-time=10"]
        if below is not None:
            command += ["-b", below, "-F", "raw"]
        done = images.create([*command, path, str(size)])
        if done.returncode:
            self.missing.append(f"an image of format {kind}: {done.stderr.strip()}")
            return self._file(name, size=size)
        os.chmod(path, 0o666)
        self._undo.append(lambda: Path(path).unlink(missing_ok=True))
        return path

    def _loop(self, path: str) -> str:
        found = subprocess.run(["losetup", "-f", "--show", path], capture_output=True, text=True, check=False)
        device = found.stdout.strip()
        if found.returncode or not os.path.exists(device):
            self.missing.append("a loop device")
            return path
        self._undo.append(lambda: subprocess.run(["losetup", "-d", device], check=False))
        return device

    def _disk(self, disk: Element) -> None:
        driver = disk.find("driver")
        kind = (driver.get("type") if driver is not None else None) or "raw"
        if disk.get("device") == "lun":
            self.missing.append("a SCSI device")
        if disk.find("source/reservations[@managed='no']") is not None:
            self.missing.append("a helper for persistent reservations")
        chain = [(disk.get("type", "file"), kind, disk.find("source"))]
        below = disk.find("backingStore")
        while below is not None and below.get("type") is not None:
            form = below.find("format")
            chain.append(
                (below.get("type", ""), (form.get("type", "raw") if form is not None else "raw"), below.find("source"))
            )
            below = below.find("backingStore")
        for source_kind, form_kind, source in reversed(chain):
            if source is not None:
                own = disk.find("encryption")
                if own is not None and source is chain[0][2] and source.find("encryption") is None:
                    source = _with(source, own)
                self._source(source_kind, form_kind, source, chain[0][2])

    def _source(self, kind: str, form: str, source: Element, top: Element | None) -> None:
        # The size of a floppy: QEMU takes no other one for that.
        size = 1440 * 1024
        real = top if top is not None and source is not top and source.getparent() is None else source
        if kind == "file" and source.get("file") is not None:
            real.set("file", self._image(source.get("file", ""), form, size, source))
        elif kind == "block" and source.get("dev") is not None:
            real.set("dev", self._loop(self._image(source.get("dev", ""), form, size, source)))
        elif kind == "dir":
            real.set("dir", self._directory())
        elif kind == "network":
            self._server(source, form, size)
        elif kind == "vhostuser":
            self.missing.append("who serves a vhost-user disk")
        elif kind in ("volume", "nvme"):
            self.missing.append(f"a {kind}")

    def _server(self, source: Element, form: str, size: int) -> None:
        protocol = source.get("protocol", "")
        if protocol != "nbd":
            module = _MODULES.get(protocol, protocol)
            what = "a server" if os.path.exists(f"{_QEMU_MODULES}/block-{module}.so") else "QEMU's block driver"
            self.missing.append(f"{what} for {protocol}")
            return
        if source.get("tls") == "yes":
            self.missing.append("certificates")
            return
        image = self._image("nbd", form, size, source)
        place = self._path("nbd.sock")
        pid_file = self._path("nbd.pid")
        command = [
            "qemu-nbd",
            "--fork",
            "--pid-file",
            pid_file,
            "--persistent",
            "--shared=0",
            "-f",
            "raw",
            "-k",
            place,
            image,
        ]
        if source.get("name") is not None:
            command[1:1] = ["-x", source.get("name", "")]
        subprocess.run(command, check=True)
        pid = int(Path(pid_file).read_text())
        self._undo.append(lambda: os.kill(pid, signal.SIGTERM))
        for host in source.findall("host"):
            source.remove(host)
        etree.SubElement(source, "host", transport="unix", socket=place)
        os.chmod(place, 0o777)

    def _system(self, system: Element) -> None:
        kernels = sorted(Path("/boot").glob("vmlinuz-*"))
        for name in ("kernel", "initrd", "dtb"):
            for element in system.findall(name):
                if name == "kernel" and kernels:
                    element.text = self._file("kernel", kernels[-1].read_bytes())
                elif name != "kernel":
                    element.text = self._file(name, b"\0" * 512)
        for table in system.findall("acpi/table"):
            table.text = self._file("slic", b"SLIC" + (36).to_bytes(4, "little") + b"\x01" + b"\0" * 27)
        code = next((one for one in _CODE if os.path.exists(one)), _CODE[0])
        variables = next((one for one in _VARIABLES if os.path.exists(one)), _VARIABLES[0])
        for loader in system.findall("loader"):
            if loader.text and loader.text.strip():
                flash = loader.get("type") == "pflash"
                if not os.path.exists(loader.text.strip()) or flash:
                    loader.text = self._file("code", Path(code if flash else _BIOS).read_bytes())
                if flash:
                    for nvram in system.findall("nvram") or [etree.SubElement(system, "nvram")]:
                        self._nvram(nvram, variables)

    def _nvram(self, nvram: Element, template: str) -> None:
        source = nvram.find("source")
        if source is not None and nvram.get("type") == "network":
            self._server(source, "raw", IMAGE_SIZE)
            return
        nvram.set("template", template)
        if source is not None:
            name = {"file": "file", "block": "dev"}[nvram.get("type", "file")]
            content = Path(template).read_bytes()
            path = self._file("variables", content)
            source.set(name, path if name == "file" else self._loop(path))
        else:
            nvram.text = self._path("variables")

    def _interface(self, interface: Element) -> None:
        kind, source = interface.get("type", "user"), interface.find("source")
        for name in ("script", "downscript"):
            for script in interface.findall(name):
                script.set("path", "/bin/true")
        if kind in ("vhostuser", "hostdev", "vdpa", "internal", "null", "vds"):
            self.missing.append(f"what is behind an interface of type {kind}")
        elif kind == "bridge" and source is not None:
            self._link(source.get("bridge", ""), "bridge")
        elif kind == "direct" and source is not None:
            self._link(source.get("dev", ""), "dummy")
        elif kind == "network" and source is not None:
            self._network(source.get("network", ""))
        elif kind in ("client", "server", "udp", "mcast") and source is not None:
            self._peer(source.get("address", "127.0.0.1"), int(source.get("port", "0")), listen=kind == "client")
            for local in source.findall("local"):
                self._address(local.get("address", ""))

    def _link(self, name: str, kind: str) -> None:
        command = ["ip", "link", "add", name, "type", kind]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode and "File exists" not in done.stderr:
            self.missing.append(f"a link of type {kind}: {done.stderr.strip()}")
            return
        subprocess.run(["ip", "link", "set", name, "up"], check=False)
        self._undo.append(lambda: subprocess.run(["ip", "link", "del", name], capture_output=True, check=False))

    def _address(self, address: str) -> None:
        """Make an address the host's own."""
        try:
            found = socket.getaddrinfo(address, None)[0][4][0]
        except OSError:
            if address:
                self.missing.append(f"a host called {address}")
            return
        if str(found) not in ("127.0.0.1", "0.0.0.0", "::", "::1") and not str(found).startswith(("224.", "230.")):
            subprocess.run(["ip", "addr", "add", str(found), "dev", "lo"], capture_output=True, check=False)

    def _peer(self, address: str, port: int, *, listen: bool) -> None:
        self._address(address)
        if listen and str(port) in self._bound:
            self.missing.append("a port that QEMU itself does not listen on")
        elif listen:
            family = socket.AF_INET6 if ":" in address else socket.AF_INET
            server = socket.socket(family, socket.SOCK_STREAM)
            self._undo.append(server.close)
            try:
                server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                server.bind((address, port))
                server.listen(1)
            except OSError as error:
                self.missing.append(f"a server at {address}:{port}: {error.strerror or error}")

    def _port(self, port: Element) -> None:
        for log in port.findall("log"):
            log.set("file", self._path("log"))
        kind = port.get("type", "")
        if port.tag == "smartcard" and port.get("mode") in ("host", "host-certificates"):
            self.missing.append("a database of certificates")
        for source in port.findall("source"):
            path = source.get("path")
            if kind in ("file", "unix") and path is not None and source.get("mode") != "connect":
                source.set("path", self._path(path))
            elif kind == "unix" and path is not None:
                source.set("path", self._listening(path))
            elif kind == "dev" and path is not None:
                self._terminal(port, source)
            elif kind == "pipe" and path is not None:
                source.set("path", self._pipe(path))
            elif kind == "tcp":
                self._peer(
                    source.get("host", "127.0.0.1"),
                    int(source.get("service", "0")),
                    listen=source.get("mode") == "connect",
                )
                if source.get("tls") == "yes":
                    self.missing.append("certificates")
            elif kind == "udp" and source.get("host") is not None:
                self._address(source.get("host", ""))

    def _listening(self, name: str) -> str:
        path = self._path(name)
        server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        server.bind(path)
        server.listen(4)
        os.chmod(path, 0o777)
        self._undo.append(server.close)
        return path

    def _terminal(self, port: Element, source: Element) -> None:
        if port.tag == "parallel":
            self.missing.append("a parallel port")
            return
        ours, theirs = pty.openpty()
        source.set("path", os.ttyname(theirs))
        os.chmod(os.ttyname(theirs), 0o666)
        self._undo += [lambda: os.close(ours), lambda: os.close(theirs)]

    def _pipe(self, name: str) -> str:
        path = self._path(name)
        os.mkfifo(path)
        os.chmod(path, 0o666)
        return path

    def _graphics(self, graphics: Element) -> None:
        if graphics.get("type") == "sdl" and not os.path.exists(f"{_QEMU_MODULES}/ui-sdl.so"):
            self.missing.append("QEMU's SDL")
        if graphics.get("socket") is not None:
            graphics.set("socket", self._path("display"))
        if graphics.get("listen") is not None:
            self._address(graphics.get("listen", ""))
        for listen in graphics.findall("listen"):
            if listen.get("type") == "socket" and listen.get("socket") is not None:
                listen.set("socket", self._path("display"))
                if graphics.get("socket") is not None:
                    graphics.set("socket", listen.get("socket", ""))
            elif listen.get("type") == "network":
                self._network(listen.get("network", ""))
            elif listen.get("address") is not None:
                self._address(listen.get("address", ""))
        if graphics.find("gl[@enable='yes']") is not None or graphics.get("type") == "egl-headless":
            self.missing.append("a render node")

    def _others(self, root: Element) -> None:
        for backend in root.iter("backend"):
            if backend.get("model") == "random" and backend.text and not os.path.exists(backend.text.strip()):
                backend.text = "/dev/urandom"
            if backend.get("type") == "passthrough":
                self.missing.append("a TPM")
        for filesystem in root.iter("filesystem"):
            for source in filesystem.findall("source"):
                if source.get("dir") is not None:
                    source.set("dir", self._directory())
                elif source.get("socket") is not None:
                    self.missing.append("who serves a file system")
        for memory in root.iter("memory"):
            for path in memory.findall("source/path"):
                path.text = self._file("memory")  # QEMU makes it as large as it is to be
        for entry in root.iter("entry"):
            if entry.get("file") is not None:
                entry.set("file", self._file("entry", b"x"))
        for device in root.iter("input"):
            if device.get("type") in ("passthrough", "evdev"):
                self.missing.append("an input device")
        for shmem in root.iter("shmem"):
            # What another guest has left there is another user's.
            self._count += 1
            shared = f"{os.path.basename(self._folder)}-{os.getpid()}-{self._count}"
            shmem.set("name", shared)
            self._undo.append(functools.partial(Path(f"/dev/shm/{shared}").unlink, missing_ok=True))
            if shmem.find("server") is not None or shmem.find("model[@type='ivshmem-doorbell']") is not None:
                self.missing.append("a server for shared memory")
        if any(one.get("value", "") for one in root.iter("{http://libvirt.org/schemas/domain/qemu/1.0}arg")):
            self.missing.append("a meaning for the document's own arguments")


def _memory(root: Element) -> int:
    """The memory of a guest in KiB, if it is said in that or in GiB."""
    memory = root.find("memory")
    if memory is None:
        return 0
    return int(memory.text or 0) << (20 if memory.get("unit", "KiB")[0] in "gG" else 0)


def _with(source: Element, encryption: Element) -> Element:
    """A source that is encrypted as the disk around it says."""
    twin = etree.fromstring(etree.tostring(source))
    twin.append(etree.fromstring(etree.tostring(encryption)))
    return twin
