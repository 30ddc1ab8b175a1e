"""From nothing to the first answer, from a definition to a running guest, and back."""

import os
import signal
import socket
import struct
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from servers import Server, Virtd
from work import Bench, Work, each, ignore, median_of, qemu, together


def restart(bench: Bench, server: Server) -> float:
    server.stop()
    return server.start()


def start(bench: Bench, server: Server) -> float:
    domain = server.connect().defineXML(bench.xml("one"))

    def once() -> float:
        taken = each(domain.create, 1)
        domain.destroy()
        return taken

    try:
        return median_of(5, once)
    finally:
        domain.undefine()


def start_four(bench: Bench, server: Server) -> float:
    """Four guests, started by four clients at the same time: the time until the last one runs."""
    names = [f"bench-four-{number}" for number in range(4)]
    connection = server.connect()
    for name in names:
        connection.defineXML(bench.xml(name.removeprefix("bench-")))

    def connect(number: int) -> Callable[[], object]:
        return server.connect().lookupByName(names[number]).create

    try:
        return together(4, connect)
    finally:
        server.clear()


def destroy(bench: Bench, server: Server) -> float:
    connection = server.connect()

    def once() -> float:
        return each(connection.createXML(bench.xml("one")).destroy, 1)

    return median_of(5, once)


def start_beside_stuck(bench: Bench, server: Server) -> float:
    """Start a healthy guest while 25 calls hang on a stopped one."""
    stuck = server.connect().createXML(bench.xml("stuck"))
    pid = qemu("bench-stuck")
    os.kill(pid, signal.SIGSTOP)
    threads = []
    try:
        for _ in range(25):
            domain = server.connect().lookupByName("bench-stuck")
            thread = threading.Thread(target=ignore, args=(domain.suspend,), daemon=True)
            thread.start()
            threads.append(thread)
        time.sleep(0.5)  # all of them hang
        return start(bench, server)
    finally:
        os.kill(pid, signal.SIGCONT)
        for thread in threads:
            thread.join(90)
        ignore(stuck.destroy)


WORKS = (
    Work("restart", "first answer of a server started again", restart, None),
    Work("start", "start a guest", start, 0.25),
    Work("start_four", "start 4 guests at once, until the last one runs", start_four, 0.25, rounds=3),
    Work("destroy", "destroy a guest", destroy, 0.1, rounds=3),
    Work(
        "start_beside_stuck", "start a guest while 25 calls hang on a stopped one", start_beside_stuck, None, rounds=1
    ),
)


# What has nothing beside it in libvirtd.


def inetd(program: str, root: str) -> float:
    """`virtd --inetd`, from its start to its first reply (AUTH_LIST), in seconds."""
    # Program 0x20008086, version 1, procedure AUTH_LIST (66), type call, serial 0, status ok.
    call = struct.pack(">7I", 28, 0x20008086, 1, 66, 0, 0, 0)
    ours, theirs = socket.socketpair()
    begin = time.perf_counter()
    with ours, subprocess.Popen([program, "--root", root, "--inetd"], stdin=theirs, stdout=theirs) as process:
        theirs.close()
        ours.sendall(call)
        if not ours.recv(4):
            raise RuntimeError("virtd --inetd does not answer")
        taken = time.perf_counter() - begin
        ours.shutdown(socket.SHUT_RDWR)
        process.wait()
    return taken


def qemu_itself(disk: os.PathLike[str] | str) -> tuple[float, float]:
    """QEMU's own share: from its start to its first QMP answer, and from `quit` to its end, in seconds."""
    with tempfile.TemporaryDirectory() as directory:
        path = f"{directory}/qmp"
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(path)
            listener.listen()
            command = ["qemu-system-x86_64", "-nodefaults", "-display", "none", "-machine", "pc,accel=tcg", "-m", "16"]
            command += ["-drive", f"file={disk},format=raw,if=virtio,readonly=on", "-chardev"]
            command += [f"socket,id=qmp,path={path}", "-mon", "chardev=qmp,mode=control"]
            begin = time.perf_counter()
            with subprocess.Popen(command) as process:
                monitor, _ = listener.accept()
                with monitor, monitor.makefile("rw") as lines:
                    lines.readline()
                    lines.write('{"execute":"qmp_capabilities"}\n')
                    lines.flush()
                    lines.readline()
                    first = time.perf_counter() - begin
                    begin = time.perf_counter()
                    lines.write('{"execute":"quit"}\n')
                    lines.flush()
                    process.wait()
                return first, time.perf_counter() - begin


def four_qemus(disk: os.PathLike[str] | str) -> float:
    """Four QEMUs started at once, without any server: the time until the last one has answered, in seconds."""
    with ThreadPoolExecutor(4) as pool:
        return max(first for first, _ in pool.map(qemu_itself, [disk] * 4))


def breakdown(disk: os.PathLike[str] | str) -> dict[str, float]:
    """Where the time of a start goes, in seconds: one guest, started in a process that serves nobody (qemu:///embed).

    The parts are timed by wrapping the functions that do them. Their sum is less than the whole: what is left is Python
    between them.
    """
    script = Path(__file__).with_name("breakdown.py")
    output = subprocess.run([Virtd.program.replace("virtd", "python"), script, disk], check=True, capture_output=True)
    return {
        words[0]: float(words[1]) for words in (line.rsplit(None, 1) for line in output.stdout.decode().splitlines())
    }
