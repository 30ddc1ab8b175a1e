"""SIGKILL at random instants of work on volumes, through a real server and the real client.

    contrib/kills [ROUNDS [SEED]]

Who dies is the process of the call, its worker, the program that does the work, or all three together, whenever the
dice please. Afterwards the pool is usable, no volume that was being made is listed unless it is whole, one that was
being changed is there and can be opened, and after the next change nothing is left: no file, no process, no lock.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from tests.helpers.instance import Instance, make_root
from tests.helpers.processes import Process, end
from tests.helpers.waiting import wait_for

__all__ = ["Kill", "kills"]

SIZE = 32 << 20  # bytes of a volume's content: some hundredths of a second for each operation
WHO: dict[str, Callable[[str], bool]] = {
    "call": lambda title: "virtd: worker for" in title and ": Storage" in title,
    "worker": lambda title: "virtd: worker for" in title,
    "program": lambda title: "qemu-img" in title.split(" ")[0],
    "all": lambda title: "virtd: worker for" in title or "qemu-img" in title.split(" ")[0],
}


class Kill(NamedTuple):
    """One attempt."""

    operation: str
    who: str
    after: float  # seconds from the command's start
    hit: int  # how many processes
    problem: str  # '' if all is as it must be


class World:
    """A server, a pool, and the volumes that the operations are about."""

    def __init__(self) -> None:
        self.instance = Instance(make_root())
        self.path = self.instance.root / "pool"
        self.path.mkdir()
        self.instance.start()
        self.virsh = self.instance.virsh
        self.virsh("pool-create-as", "pool", "dir", "--target", str(self.path))
        self.content = self.instance.root / "content"
        self.content.write_bytes(random.Random(2).randbytes(1 << 20) * (SIZE >> 20))

    def prepare(self) -> None:
        """The volumes as they are before each operation."""
        for name in os.listdir(self.path):
            self.virsh("vol-delete", name, "--pool", "pool")
        for name in ("source", "changed"):
            self.virsh("vol-create-as", "pool", name, str(SIZE))
            (self.path / name).write_bytes(self.content.read_bytes())
        self.virsh("vol-create-as", "pool", "image", "8M", "--format", "qcow2")

    def attempt(self, operation: str, who: str, delay: float) -> tuple[int, float]:
        """Do something and kill who does it; returns how many were killed, and the seconds it took if none were."""
        command = ["virsh", "--quiet", "--connect", self.instance.uri, *OPERATIONS[operation].command(self)]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as client:
            try:
                client.wait(delay)
            except subprocess.TimeoutExpired:
                victims = [one for one in self.instance.processes() if WHO[who](one.title)]
                end(one.pid for one in victims)
                client.wait(60)
                return len(victims), delay
        return 0, delay

    def judge(self, operation: str) -> str:
        """What is wrong after a kill; '' if nothing is."""
        # A call goes on without its worker; what a call runs ends with it, but a moment later.
        wait_for(lambda: not self._working(), "the end of the work")
        listed = {line.split()[0] for line in self.virsh("vol-list", "pool").splitlines() if line}
        if not listed >= {"source", "changed", "image"}:
            return f"only {sorted(listed)} are listed"
        for name in listed - {"source", "changed", "image"}:
            if not OPERATIONS[operation].whole(self, self.path / name):
                return f"'{name}' is listed, and not whole"
        if not OPERATIONS[operation].sound(self):
            return "what was changed is not sound"
        self.virsh("vol-create-as", "pool", "next", "1K")
        left = [name for name in os.listdir(self.path) if name.startswith(".")]
        left += os.listdir(self.instance.root / "run/virtd/storage/jobs")
        return f"{left} are left" if left else ""

    def _working(self) -> list[Process]:
        return [one for one in self.instance.processes() if WHO["call"](one.title) or WHO["program"](one.title)]


class Operation(NamedTuple):
    """Work on a volume."""

    command: Callable[[World], list[str]]
    whole: Callable[[World, Path], bool] = lambda world, path: False
    sound: Callable[[World], bool] = lambda world: True


def _runs(*command: object) -> bool:
    return subprocess.run([str(word) for word in command], capture_output=True, check=False).returncode == 0


def _image_is_sound(world: World) -> bool:
    """A qemu-img that was killed may have left clusters in the image that nobody uses (status 3), nothing worse."""
    check = subprocess.run(["qemu-img", "check", "-q", world.path / "image"], capture_output=True, check=False)
    return check.returncode in (0, 3)


def _size_is_kept(world: World) -> bool:
    return (world.path / "changed").stat().st_size == SIZE


OPERATIONS = {
    "create": Operation(
        lambda world: ["vol-create-as", "pool", "made", "1G", "--format", "qcow2", "--prealloc-metadata"],
        lambda world, path: _runs("qemu-img", "check", "-q", path),
    ),
    "clone": Operation(
        lambda world: ["vol-clone", "source", "copy", "--pool", "pool"],
        lambda world, path: path.read_bytes() == world.content.read_bytes(),
    ),
    "resize": Operation(lambda world: ["vol-resize", "image", "64G", "--pool", "pool"], sound=_image_is_sound),
    "wipe": Operation(lambda world: ["vol-wipe", "changed", "pool"], sound=_size_is_kept),
    "upload": Operation(
        lambda world: ["vol-upload", "changed", str(world.content), "--pool", "pool"], sound=_size_is_kept
    ),
}


def kills(seed: int, rounds: int) -> Iterator[Kill]:
    """So many kills of each operation."""
    dice = random.Random(seed)
    world = World()
    try:
        for operation in OPERATIONS:
            world.prepare()
            seconds = _measure(world, operation)
            for _ in range(rounds):
                world.prepare()
                who, delay = dice.choice(list(WHO)), dice.uniform(seconds * 0.2, seconds)
                hit, _ = world.attempt(operation, who, delay)
                yield Kill(operation, who, delay, hit, world.judge(operation))
    finally:
        left = world.instance.finish()
        assert not left, left


def _measure(world: World, operation: str) -> float:
    before = os.times().elapsed
    world.attempt(operation, "all", 60)
    return os.times().elapsed - before


if __name__ == "__main__":
    bad = done = 0
    for kill in kills(int(sys.argv[2]) if len(sys.argv) > 2 else 1, int(sys.argv[1]) if len(sys.argv) > 1 else 50):
        done += kill.hit > 0
        bad += bool(kill.problem)
        print(f"{kill.operation:8} {kill.who:8} {kill.after:6.3f} s  {kill.hit} killed  {kill.problem}", flush=True)
    print(f"{done} kills, {bad} problems")
    sys.exit(bad > 0)
