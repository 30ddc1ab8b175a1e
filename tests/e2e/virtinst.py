"""virt-install, virt-clone and virt-xml as Debian has them, on one instance of virtd.

Knows of virtd only its URI. What the tools keep for themselves they keep below the instance's root, and disks that
they make lie in a pool called 'default' there.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from xml.etree import ElementTree

from tests.e2e.guests import Guest
from tests.guests.bootsector import write_boot_disk
from tests.helpers.console import Console
from tests.helpers.instance import Instance

__all__ = ["Tools"]


class Tools:
    """The tools, a pool for the disks they make, and a directory for everything else.

    Args:
        instance: a running virtd.
        uri: how the tools reach it.
        run: runs a command and returns what it wrote to standard output; without it the instance does.
        environment: of a command on a terminal, and what comes before it.
        default: define the pool; without it virt-install has to.
    """

    def __init__(
        self,
        instance: Instance,
        uri: str,
        run: Callable[..., str] | None = None,
        *,
        environment: dict[str, str] | None = None,
        become: Sequence[str] = (),
        default: bool = True,
    ) -> None:
        self.instance = instance
        self.uri = uri
        self.home = instance.root / "home"
        self.pool = instance.root / "pool"
        self.files = instance.root / "guests"
        for directory in (self.home, self.pool, self.files):
            directory.mkdir(exist_ok=True)
            # Whoever QEMU runs as reads and writes here.
            directory.chmod(0o777)
        self._run = run or self._run_here
        self._environment = {**instance.environment, "HOME": str(self.home), **(environment or {})}
        self._become = become
        if default:
            self.virsh("pool-define-as", "default", "dir", "--target", str(self.pool))
            self.virsh("pool-start", "default")

    def _run_here(self, *command: str) -> str:
        return self.instance.run(*command, env={"HOME": str(self.home)}, seconds=120).stdout

    def virsh(self, *command: str) -> str:
        """virsh, by the same URI."""
        return self._run("virsh", "--quiet", "--connect", self.uri, *command).strip()

    def __call__(self, program: str, *options: str) -> str:
        """Run a tool; returns what it says. Raises AssertionError if it fails."""
        return self._run(program, "--connect", self.uri, *options)

    def options(self, name: str, *options: str, osinfo: str = "generic") -> list[str]:
        """Options of virt-install for a small guest without a screen."""
        head = ["--name", name, "--osinfo", osinfo, "--virt-type", "qemu", "--graphics", "none"]
        memory = [] if "--memory" in options else ["--memory", "64"]
        network = [] if "--network" in options else ["--network", "none"]
        return [*head, *memory, *network, *options]

    def install(self, name: str, *options: str, osinfo: str = "generic") -> Guest:
        """virt-install of a guest with a serial port in a file, without a look at its console."""
        output = self.files / f"{name}.serial"
        serial = ["--serial", f"file,path={output}", "--noautoconsole"]
        self("virt-install", *self.options(name, *serial, *options, osinfo=osinfo))
        return Guest(name, "", self.files / f"{name}.xml", self.files / f"{name}.img", output)

    def console(self, name: str, *options: str) -> Console:
        """virt-install of a guest whose console is shown, on a terminal."""
        command = [*self._become, "virt-install", "--connect", self.uri, *self.options(name, *options)]
        return Console(command, env=self._environment)

    def disk(self, name: str, then: str = "serve") -> str:
        """A disk that boots, as --disk takes it."""
        path = write_boot_disk(self.files / f"{name}.img", then=then)
        path.chmod(0o666)
        return f"path={path},format=raw"

    def disc(self, name: str) -> Path:
        """A CD image that boots (El Torito, without emulation)."""
        content, path = self.files / name, self.files / f"{name}.iso"
        content.mkdir()
        write_boot_disk(content / "boot.img")
        command = ["xorriso", "-as", "mkisofs", "-quiet", "-o", path, "-b", "boot.img", "-no-emul-boot", content]
        subprocess.run([*command, "-boot-load-size", "4"], check=True, capture_output=True)
        return path

    def tree(self, kernel: Path, initrd: Path) -> Path:
        """A directory that looks like what a distribution is installed from, as --location takes it."""
        tree = self.files / "tree"
        (tree / "images").mkdir(parents=True)
        shutil.copy(kernel, tree / "images/vmlinuz")
        shutil.copy(initrd, tree / "images/initrd.img")
        (tree / ".treeinfo").write_text(
            "[general]\nfamily = Fedora\nversion = 38\narch = x86_64\nname = Fedora-38\n"
            "[images-x86_64]\nkernel = images/vmlinuz\ninitrd = images/initrd.img\n"
        )
        return tree

    def xml(self, name: str, *options: str) -> ElementTree.Element:
        """A guest's XML."""
        return ElementTree.fromstring(self.virsh("dumpxml", name, *options))

    def running(self) -> list[str]:
        """The names of the guests that run."""
        return self.virsh("list", "--name").split()

    def defined(self) -> list[str]:
        """The names of the guests that are defined."""
        return sorted(self.virsh("list", "--all", "--persistent", "--name").split())
