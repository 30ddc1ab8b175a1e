"""Finding out what a QEMU binary can do: lazily, once, within a bound, and remembered on disk.

The binary is started once without a machine (-M none) and asked over QMP. The answer is kept in the cache directory
under the binary's path; it holds for this very file, with these modules beside it, on this kernel and processor. A
process that needs it while another one is finding out waits for that one.

This module knows no domain.
"""

import glob
import hashlib
import json
import os
import signal
import socket
from collections.abc import Callable
from functools import cache
from typing import cast

from virtd import constants as c
from virtd import deadlines
from virtd.drivers.qemu import shape
from virtd.drivers.qemu.host import binary as record
from virtd.drivers.qemu.host import kvm
from virtd.drivers.qemu.host.binary import Binary, CpuModel, Machine
from virtd.drivers.qemu.monitor.client import Command, Monitor, MonitorClosed, QMPError
from virtd.drivers.qemu.run import confine
from virtd.drivers.qemu.shape import Table
from virtd.errors import VirtError
from virtd.state import files, locks

SECONDS = 20.0
# Device types may come as modules, which packages add beside the binary: in a directory of one of these.
_LIBRARIES = ("/usr/lib/*-linux-*", "/usr/lib64", "/usr/lib")

_known: dict[tuple[str, str], tuple[list[object], Binary]] = {}


def probe(path: str, cache: str, *, accelerator: str = "tcg", user: confine.User | None = None) -> Binary:
    """What a QEMU binary can do.

    Args:
        path: the binary.
        cache: an instance's cache directory.
        accelerator: 'tcg', or 'kvm' where kvm.check() found it usable; CPU models depend on it.
        user: who it is run as for that.

    Raises:
        VirtError: VIR_ERR_SYSTEM_ERROR: there is no such binary; VIR_ERR_INTERNAL_ERROR: it is no QEMU, with
            what it said instead.
        DeadlineExceeded: it gave no answer within SECONDS, or within the bound of the call.
    """
    key = _identity(path, accelerator)
    memo = _known.get((path, accelerator))
    if memo is not None and memo[0] == key:
        return memo[1]
    place = _place(path, cache, accelerator)
    found = _recall(place, key)
    if found is None:
        with locks.held(f"{place}.lock", f"probing {path}", what=f"lock of probing {path}"):
            found = _recall(place, key)
            if found is None:
                with deadlines.limit(SECONDS):
                    found = _ask(path, accelerator, user)
                content = {"identity": key, "binary": record.encode(found)}
                files.replace(place, json.dumps(content).encode(), durable=False)
    _known[(path, accelerator)] = (key, found)
    return found


def recall(path: str, cache: str) -> bool:
    """Take what is known of a binary from the disk, without asking it; whether anything is.

    Args:
        path: the binary.
        cache: an instance's cache directory.

    Raises:
        VirtError: VIR_ERR_SYSTEM_ERROR.
    """
    for accelerator in ("tcg", "kvm"):
        place = _place(path, cache, accelerator)
        if (path, accelerator) not in _known and os.path.exists(place):
            key = _identity(path, accelerator)
            found = _recall(place, key)
            if found is not None:
                _known[(path, accelerator)] = (key, found)
    return (path, "tcg") in _known or (path, "kvm") in _known


def _place(path: str, cache: str, accelerator: str) -> str:
    """The file in which it is written what a binary can do."""
    stem = f"{os.path.basename(path)}-{hashlib.sha256(os.fsencode(path)).hexdigest()[:8]}.{accelerator}"
    return f"{cache}/qemu/{stem}.json"


def _identity(path: str, accelerator: str) -> list[object]:
    """What the answer depends on; any change of it makes the binary be asked again."""
    try:
        found = os.stat(path)
    except OSError as error:
        raise files.os_error(error, f"Cannot check QEMU binary {path}") from None
    if not os.access(path, os.X_OK):
        raise VirtError(
            c.VIR_ERR_SYSTEM_ERROR,
            f"QEMU binary {path} is not executable: Permission denied",
            domain=c.VIR_FROM_QEMU,
        )
    modules = [there[1] for place in _module_directories() if (there := files.identity(place)) is not None]
    with open("/proc/cpuinfo", "rb") as file:
        # The first processor's: of many, the file takes its time.
        lines = file.read(4096).split(b"\n")
    processor = [line.decode(errors="replace") for line in lines if line.startswith((b"model name", b"flags"))]
    return [
        record.FORMAT,
        [found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns, *modules],
        os.uname().release,
        processor[:2],
        kvm.identity() if accelerator == "kvm" else [],
    ]


@cache
def _module_directories() -> list[str]:
    """Where modules of QEMU are, or may come to be."""
    return [f"{place}/qemu" for pattern in _LIBRARIES for place in glob.glob(pattern)]


def _recall(place: str, key: list[object]) -> Binary | None:
    content = files.read(place)
    try:
        note = shape.as_table(json.loads(content or b""), place)
        if note.get("identity") == key:
            return record.decode(shape.table(note, "binary"))
    except (ValueError, TypeError, shape.ShapeError):
        pass  # of an older form, or no file at all: it is asked again
    return None


def _ask(path: str, accelerator: str, user: confine.User | None) -> Binary:
    """Start the binary, ask it, end it."""
    ours, theirs = socket.socketpair()
    output = os.memfd_create("output")
    try:
        with theirs:
            argv = [
                path,
                *("-S", "-no-user-config", "-nodefaults", "-nographic", "-M", f"none,accel={accelerator}"),
                *("-chardev", f"socket,id=m,fd={theirs.fileno()}", "-mon", "chardev=m,mode=control"),
            ]
            environment = confine.environment("/nonexistent", privileged=True)
            pid = confine.spawn(argv, environment=environment, output=output, fds=[theirs.fileno()], user=user)
        try:
            with Monitor(ours, os.path.basename(path), SECONDS) as monitor:
                return _collect(path, accelerator, monitor)
        except MonitorClosed:
            said = os.pread(output, 4096, 0).decode(errors="replace").strip()
            raise VirtError(
                c.VIR_ERR_INTERNAL_ERROR,
                f"Failed to probe QEMU binary with QMP: {said or f'{path} ended without a word'}",
                domain=c.VIR_FROM_QEMU,
            ) from None
        finally:
            _end(pid)
    finally:
        ours.close()
        os.close(output)


def _end(pid: int) -> None:
    """Kill the process, and reap it if it goes: one that is stuck in the kernel is left to whoever reaps us."""
    process = os.pidfd_open(pid)
    try:
        signal.pidfd_send_signal(process, signal.SIGKILL)
        with deadlines.unlimited():
            if deadlines.readable(process, 2.0):
                os.waitpid(pid, 0)
    finally:
        os.close(process)


def _collect(path: str, accelerator: str, monitor: Monitor) -> Binary:
    widest = "host" if accelerator == "kvm" else "max"
    questions: list[Command] = [
        ("query-target", None),
        ("query-machines", None),
        ("query-cpu-definitions", None),
        ("query-cpu-model-expansion", {"type": "full", "model": {"name": widest}}),
        ("qom-list-types", {"abstract": False}),
        ("query-commands", None),
        ("query-command-line-options", None),
        ("query-qmp-schema", None),
        ("query-tpm-models", None),
        ("query-tpm-types", None),
        ("query-sev-capabilities", None),
        ("query-sgx-capabilities", None),
    ]
    answers = dict(zip((name for name, _ in questions), monitor.execute_all(questions), strict=True))

    def need(name: str) -> object:
        answer = answers[name]
        if isinstance(answer, QMPError):
            raise answer
        return answer

    def may(name: str, otherwise: object) -> object:
        answer = answers[name]
        return otherwise if isinstance(answer, QMPError) else answer

    expansion = shape.as_table(may("query-cpu-model-expansion", {"model": {"props": {}}}), "expansion")
    sev, sgx = may("query-sev-capabilities", None), may("query-sgx-capabilities", None)
    return Binary(
        path=path,
        version=monitor.version,
        package=monitor.package,
        target=shape.text(shape.as_table(need("query-target"), "target"), "arch"),
        machines=_machines(shape.as_tables(need("query-machines"), "machines")),
        cpu_models=tuple(map(_model, shape.as_tables(may("query-cpu-definitions", []), "models"))),
        widest_cpu=shape.table(shape.table(expansion, "model"), "props"),
        types=_names(need("qom-list-types")),
        commands=_names(need("query-commands")),
        options={
            shape.text(item, "option"): _names(shape.tables(item, "parameters"))
            for item in shape.as_tables(need("query-command-line-options"), "options")
        },
        choices=_choices(shape.as_tables(need("query-qmp-schema"), "schema")),
        tpm_models=tuple(cast(list[str], may("query-tpm-models", []))),
        tpm_types=tuple(cast(list[str], may("query-tpm-types", []))),
        sev=None if sev is None else shape.as_table(sev, "sev"),
        sgx=None if sgx is None else shape.as_table(sgx, "sgx"),
    )


def _names(answer: object) -> frozenset[str]:
    return frozenset(shape.text(item, "name") for item in shape.as_tables(answer, "names"))


def _machines(items: list[Table]) -> tuple[Machine, ...]:
    machines = [
        Machine(
            name=shape.text(item, "name"),
            alias=shape.text(item, "alias", "") or None,
            default=shape.truth(item, "is-default", False),
            max_cpus=shape.number(item, "cpu-max"),
            hotplug_cpus=shape.truth(item, "hotpluggable-cpus"),
            deprecated=shape.truth(item, "deprecated", False),
            ram_id=shape.text(item, "default-ram-id", "") or None,
            cpu=shape.text(item, "default-cpu-type", "") or None,
            numa_sizes=shape.truth(item, "numa-mem-supported", False),
        )
        for item in items
    ]
    return tuple(sorted(machines, key=lambda machine: not machine.default))


def _model(item: Table) -> CpuModel:
    return CpuModel(
        name=shape.text(item, "name"),
        type_name=shape.text(item, "typename", ""),
        blockers=tuple(shape.texts(item, "unavailable-features", [])),
        deprecated=shape.truth(item, "deprecated", False),
    )


def _choices(schema: list[Table]) -> dict[str, frozenset[str]]:
    """What QEMU was built with, where QAPI says it: which variants some of its unions have.

    The schema's types have no names that could be relied on; they are found from the commands that use them.
    """
    types = {shape.text(item, "name"): item for item in schema}

    def member(name: str, field: str) -> Table:
        for item in shape.tables(types[name], "members"):
            if item.get("name") == field:
                return types[shape.text(item, "type")]
        raise shape.ShapeError(f"no member '{field}' in QMP schema")

    def values(item: Table) -> frozenset[str]:
        return frozenset(shape.texts(item, "values"))

    def argument(command: str) -> str:
        return shape.text(types[command], "arg-type")

    found: dict[str, Callable[[], Table]] = {
        "blockdev": lambda: member(argument("blockdev-add"), "driver"),
        "netdev": lambda: member(argument("netdev_add"), "type"),
        "object": lambda: member(argument("object-add"), "qom-type"),
        "chardev": lambda: member(shape.text(member(argument("chardev-add"), "backend"), "name"), "type"),
        "display": lambda: member(shape.text(types["query-display-options"], "ret-type"), "type"),
    }
    return {name: values(enumeration()) for name, enumeration in found.items()}
