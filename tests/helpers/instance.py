"""A virtd of a test's own: started, asked through virsh, and ended so that nothing of it is left.

Everything is started under a keeper (keeper.py), so that what a test leaves behind is known without help from the
code under test. Knows of virtd only its command line and of its state only the sockets' place and the pid file.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from tests.helpers.console import Console
from tests.helpers.processes import Kept, Process, descendants, end, run_kept
from tests.helpers.waiting import SECONDS, wait_ended

__all__ = ["Instance", "make_root"]

REPOSITORY = Path(__file__).parents[2]


def make_root() -> Path:
    """A new directory for --root. Its name is short, as that of a Unix socket must be; QEMU's user may enter it."""
    root = Path(tempfile.mkdtemp(prefix="v-", dir="/tmp"))
    root.chmod(0o755)
    return root


class Instance:
    """One root directory, and the virtd that serves it, if one does."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.socket = root / "run/libvirt/libvirt-sock"
        self.socket_ro = root / "run/libvirt/libvirt-sock-ro"
        self.pid_file = root / "run/virtd/virtd.pid"
        self.mode = "system" if os.geteuid() == 0 else "session"
        self.uri = f"qemu+unix:///{self.mode}?socket={self.socket}"
        self.uri_ro = f"qemu+unix:///{self.mode}?socket={self.socket_ro}"
        self._keepers: list[subprocess.Popen[bytes]] = []

    # What runs

    @property
    def environment(self) -> dict[str, str]:
        """The environment for commands that are to work with this root."""
        path = os.pathsep.join(filter(None, [str(REPOSITORY), os.environ.get("PYTHONPATH")]))
        return {**os.environ, "VIRTD_ROOT": str(self.root), "PYTHONPATH": path, "LC_ALL": "C.UTF-8"}

    def run(
        self,
        *command: str,
        stdin: str = "",
        seconds: float = SECONDS,
        check: bool = True,
        env: Mapping[str, str] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run any command with VIRTD_ROOT set; what it leaves running belongs to this instance.

        Raises AssertionError with the command's output if `check` and its exit status is not 0;
        subprocess.TimeoutExpired.
        """
        kept: Kept = run_kept(command, env={**self.environment, **(env or {})}, stdin=stdin, seconds=seconds)
        self._keepers.append(kept.keeper)
        result = kept.result
        if check and result.returncode:
            raise AssertionError(
                f"{' '.join(command)}: exit status {result.returncode}\n{result.stdout}{result.stderr}{self.log_tail()}"
            )
        return result

    def start(self, *options: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """`virtd --root ROOT --daemon OPTIONS`: returns when its sockets accept. Errors as run()."""
        return self.run(
            sys.executable, "-m", "virtd.server.main", "--root", str(self.root), "--daemon", *options, check=check
        )

    @property
    def pid(self) -> int | None:
        """The server's process id, from its pid file; None if it does not run."""
        try:
            pid = int(self.pid_file.read_text())
            os.kill(pid, 0)
        except (FileNotFoundError, ProcessLookupError):
            return None
        return pid

    def stop(self, seconds: float = SECONDS) -> None:
        """End the server as an administrator would (SIGTERM). Guests go on. Raises AssertionError if it does not
        end.
        """
        pid = self.pid
        if pid is None:
            return
        os.kill(pid, signal.SIGTERM)
        if not wait_ended(pid, seconds):
            raise AssertionError(f"virtd ({pid}) has not ended {seconds} s after SIGTERM{self.log_tail()}")

    def processes(self) -> list[Process]:
        """Everything that runs because of this instance: servers, workers, supervisors, QEMUs."""
        return descendants(keeper.pid for keeper in self._keepers)

    def kill(self, title: str) -> list[Process]:
        """kill -9 every process whose title contains `title` ('virtd: ' for all but QEMU and dnsmasq); returns who
        that was.
        """
        victims = [process for process in self.processes() if title in process.title]
        end(process.pid for process in victims)
        return victims

    def log_tail(self, lines: int = 30) -> str:
        """The end of virtd's log, for messages of failures."""
        log = self.root / "var/log/virtd/virtd.log"
        if not log.exists():
            return ""
        return "\n--- virtd.log\n" + "\n".join(log.read_text(errors="replace").splitlines()[-lines:])

    # virsh

    def virsh(
        self, *command: str, seconds: float = SECONDS, check: bool = True, read_only: bool = False, stdin: str = ""
    ) -> str:
        """Debian's virsh on this instance: what it wrote to standard output, without blank lines at its end.

        Raises AssertionError with what it wrote to standard error if `check` and it failed; subprocess.TimeoutExpired.
        """
        result = self.virsh_result(*command, seconds=seconds, read_only=read_only, stdin=stdin)
        if check and result.returncode:
            raise AssertionError(
                f"virsh {' '.join(command)}: exit status {result.returncode}\n{result.stderr}{self.log_tail()}"
            )
        return result.stdout.rstrip("\n")

    def virsh_error(self, *command: str, seconds: float = SECONDS, read_only: bool = False) -> str:
        """Run a virsh command that has to fail; returns what it says, without "error: ". Raises AssertionError if
        it succeeds.
        """
        result = self.virsh_result(*command, seconds=seconds, read_only=read_only)
        if result.returncode == 0:
            raise AssertionError(f"virsh {' '.join(command)} succeeded:\n{result.stdout}")
        return "\n".join(line.removeprefix("error: ") for line in result.stderr.splitlines() if line)

    def virsh_result(
        self, *command: str, seconds: float = SECONDS, read_only: bool = False, stdin: str = ""
    ) -> subprocess.CompletedProcess[str]:
        """As virsh(), but with exit status and standard error, and without a check."""
        return subprocess.run(
            ["virsh", "--quiet", "--connect", self.uri_ro if read_only else self.uri, *command],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=seconds,
            env=self.environment,
            check=False,
        )

    def console(self, name: str, *options: str) -> Console:
        """`virsh console NAME` on a terminal: a context manager."""
        return Console(["virsh", "--connect", self.uri, "console", name, *options], env=self.environment)

    def define(self, xml: str) -> None:
        """`virsh define` of a document."""
        path = Path(tempfile.mkstemp(suffix=".xml", dir=self.root)[1])
        path.write_text(xml)
        self.virsh("define", str(path))
        path.unlink()

    # The end

    def finish(self, seconds: float = SECONDS) -> list[Process]:
        """End guests, networks and server; returns the processes that then had to be killed: there should be none.
        Removes the directory.

        Guests are ended through the server, which is started again for that if it does not run. What has not ended by
        itself after `seconds` is killed.
        """
        try:
            # A program without a server may have started guests, too: these are nobody's descendants.
            if self.processes() or list(self.root.glob("run/virtd/*/*/status")):
                if self.pid is None:
                    self.start()
                for running, stop in (("list", "destroy"), ("net-list", "net-destroy")):
                    listed = self.virsh_result(running, "--name")
                    for name in listed.stdout.split("\n") if listed.returncode == 0 else ():
                        if name:
                            self.virsh_result(stop, name)
                self.stop()
        finally:
            left = self._clear(seconds)
            shutil.rmtree(self.root, ignore_errors=True)
        return left

    def _clear(self, seconds: float) -> list[Process]:
        deadline = time.monotonic() + seconds
        for keeper in self._keepers:
            wait_ended(keeper.pid, max(0.0, deadline - time.monotonic()))
        left = self.processes()
        # From the top down, so that nobody starts again what has just been killed.
        end(process.pid for process in left)
        for keeper in self._keepers:
            keeper.wait(SECONDS)
        return left
