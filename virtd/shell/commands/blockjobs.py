"""Jobs on the disks of running guests: copying them, and shortening the chains of their images."""

from __future__ import annotations

import select
import sys
import time

from virtd import constants as c
from virtd.errors import VirtError
from virtd.shell import eventnames, typed, units, xmltext
from virtd.shell.command import Args, Command
from virtd.shell.eventloop import Subscription
from virtd.shell.failure import Failure, failing
from virtd.shell.output import Output, Plain
from virtd.shell.session import Session, read_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_MIB = 1 << 20
_TYPES = ("Unknown job", "Block Pull", "Block Copy", "Block Commit", "Active Block Commit", "Backup")
_EVENT = eventnames.DOMAIN.index("block-job-2")
# How often the progress line is drawn anew while no event comes.
_REDRAW_MS = 500


def _bandwidth(args: Args, *, scaled: bool = False) -> int:
    """The limit of --bandwidth: in MiB/s, or with --bytes in bytes/s."""
    if args.flag("bytes"):
        return args.scaled("bandwidth") or 0
    number = args.natural("bandwidth", 2**64 - 1) or 0
    return number * _MIB if scaled else number


class _Wait:
    """Waits for a job by the options --wait, --verbose, --timeout and --async."""

    def __init__(self, session: Session, args: Args, domain: Any, what: str) -> None:
        if not _waits(args):
            args.requires("verbose", "wait")
            args.requires("async", "wait")
        self.session = session
        self.domain = domain
        self.path = args.required("path")
        self.what = what
        self.verbose = args.flag("verbose")
        self.lazy = args.flag("async")
        seconds = args.natural("timeout") or 0
        self.end = time.monotonic() + seconds if seconds else None
        self.subscription = Subscription(session, "connect_domain_event_callback_deregister_any")

    def __enter__(self) -> _Wait:
        try:
            self.subscription.add("connect_domain_event_callback_register_any", _EVENT, self.domain)
        except VirtError:
            pass  # then the job itself is asked, now and then
        return self

    def __exit__(self, *_: object) -> None:
        self.subscription.__exit__()

    def until_over(self) -> str:
        """Wait; returns "completed", "failed", "canceled" or "ready"."""
        try:
            while True:
                status = self._event() or self._ask()
                if status:
                    self._draw(100 if status in ("completed", "ready") else None, last=True)
                    return status
                if self.end is not None and time.monotonic() >= self.end:
                    return self._cancel()
        except KeyboardInterrupt:
            return self._cancel()

    def _event(self) -> str:
        poll = select.poll()
        for descriptor in self.session.connect().event_fds():
            poll.register(descriptor, select.POLLIN)
        if not poll.poll(_REDRAW_MS):
            return ""
        status = ""
        for event in self.session.read_events():
            found = eventnames.describe_domain(event.procedure, event.values)
            if found and found[0] in self.subscription.callbacks:
                status = str(found[2].get("status", ""))
        return status

    def _ask(self) -> str:
        """Look at the job itself, and draw how far it is."""
        found, _, _, current, end = self.session.call("domain_get_block_job_info", self.domain, self.path, 0)
        if not found:
            return "completed"
        self._draw(int(current * 100 / end) if end else 0)
        return "ready" if end and current == end and self.what != "Block Pull" else ""

    def _draw(self, share: int | None, *, last: bool = False) -> None:
        if share is not None and (self.verbose or sys.stderr.isatty()):
            share = share if last else min(share, 99)
            sys.stderr.write(f"\r{self.what}: [{share:3d} %]" + ("\n" if last and sys.stderr.isatty() else ""))
            sys.stderr.flush()

    def _cancel(self) -> str:
        flags = c.VIR_DOMAIN_BLOCK_JOB_ABORT_ASYNC if self.lazy else 0
        with failing(f"failed to abort job for disk '{self.path}'"):
            self.session.call("domain_block_job_abort", self.domain, self.path, flags)
        return "canceled"


def _waits(args: Args) -> bool:
    """Whether the options say to wait."""
    return any(args.flag(name) for name in ("wait", "timeout", "pivot", "finish", "keep-overlay"))


def blockpull(session: Session, args: Args) -> None:
    """virDomainBlockPull, virDomainBlockRebase."""
    domain, path = session.domain(args.required("domain")), args.required("path")
    flags = c.VIR_DOMAIN_BLOCK_REBASE_BANDWIDTH_BYTES if args.flag("bytes") else 0
    flags |= c.VIR_DOMAIN_BLOCK_REBASE_RELATIVE if args.flag("keep-relative") else 0
    with _Wait(session, args, domain, "Block Pull") as waiting:
        base = args.text("base")
        if base is not None or flags:
            session.call("domain_block_rebase", domain, path, base, _bandwidth(args), flags)
        else:
            session.call("domain_block_pull", domain, path, _bandwidth(args), 0)
        if not _waits(args):
            session.say("Block Pull started")
            return
        _finish(session, waiting.until_over(), "Pull complete", "Pull")


def _finish(session: Session, status: str, done: str, noun: str) -> None:
    """Say how a job ended."""
    if status == "failed":
        raise Failure(f"{noun} failed")
    session.write(f"\n{noun} aborted" if status == "canceled" else f"\n{done}")


def blockcommit(session: Session, args: Args) -> None:
    """virDomainBlockCommit."""
    args.exclusive("pivot", "keep-overlay")
    domain, path = session.domain(args.required("domain")), args.required("path")
    flags = args.flags(
        {
            "shallow": c.VIR_DOMAIN_BLOCK_COMMIT_SHALLOW,
            "delete": c.VIR_DOMAIN_BLOCK_COMMIT_DELETE,
            "keep-relative": c.VIR_DOMAIN_BLOCK_COMMIT_RELATIVE,
            "bytes": c.VIR_DOMAIN_BLOCK_COMMIT_BANDWIDTH_BYTES,
        }
    )
    active = args.flag("active") or args.flag("pivot") or args.flag("keep-overlay")
    flags |= c.VIR_DOMAIN_BLOCK_COMMIT_ACTIVE if active else 0
    with _Wait(session, args, domain, "Block commit") as waiting:
        base, top = args.text("base"), args.text("top")
        session.call("domain_block_commit", domain, path, base, top, _bandwidth(args), flags)
        if not _waits(args):
            session.say("Active Block Commit started" if active else "Block Commit started")
            return
        status = waiting.until_over()
        done = _switch(session, args, domain, path, status, "keep-overlay")
        _finish(session, status, done or ("Now in synchronized phase" if active else "Commit complete"), "Commit")


def _switch(session: Session, args: Args, domain: Any, path: str, status: str, stay: str) -> str:
    """End a job that is in step with the disk, by --pivot or its opposite; what to say of it, if it was ended."""
    if status != "ready":
        return ""
    lazy = c.VIR_DOMAIN_BLOCK_JOB_ABORT_ASYNC if args.flag("async") else 0
    if args.flag("pivot"):
        with failing(f"failed to pivot job for disk {path}"):
            session.call("domain_block_job_abort", domain, path, lazy | c.VIR_DOMAIN_BLOCK_JOB_ABORT_PIVOT)
        return "Successfully pivoted"
    if args.flag(stay):
        with failing(f"failed to finish job for disk {path}"):
            session.call("domain_block_job_abort", domain, path, lazy)
        return "Successfully copied" if stay == "finish" else "Commit complete, overlay image kept"
    return ""


def blockcopy(session: Session, args: Args) -> Output | None:
    """virDomainBlockCopy, virDomainBlockRebase."""
    for one, other in (("dest", "xml"), ("format", "xml"), ("blockdev", "xml"), ("pivot", "finish")):
        args.exclusive(one, other)
    domain, path = session.domain(args.required("domain")), args.required("path")
    destination, file = args.text("dest"), args.text("xml")
    if destination is None and file is None:
        raise Failure("need either --dest or --xml")
    document = read_text(file) if file is not None else _destination(args, destination or "")
    if args.flag("print-xml"):
        return Plain("xml", document)
    flags = args.flags(
        {
            "shallow": c.VIR_DOMAIN_BLOCK_COPY_SHALLOW,
            "reuse-external": c.VIR_DOMAIN_BLOCK_COPY_REUSE_EXT,
            "transient-job": c.VIR_DOMAIN_BLOCK_COPY_TRANSIENT_JOB,
            "synchronous-writes": c.VIR_DOMAIN_BLOCK_COPY_SYNCHRONOUS_WRITES,
        }
    )
    parameters = []
    for name, value, kind in (
        ("bandwidth", _bandwidth(args, scaled=True), c.VIR_TYPED_PARAM_ULLONG),
        ("granularity", args.natural("granularity") or 0, c.VIR_TYPED_PARAM_UINT),
        ("buf-size", args.natural("buf-size", 2**64 - 1) or 0, c.VIR_TYPED_PARAM_ULLONG),
    ):
        if value:
            parameters.append(typed.make(name, kind, value))
    with _Wait(session, args, domain, "Block Copy") as waiting:
        session.call("domain_block_copy", domain, path, document, parameters, flags)
        if not _waits(args):
            session.say("Block Copy started")
            return None
        status = waiting.until_over()
        done = _switch(session, args, domain, path, status, "finish")
        _finish(session, status, done or "Now in mirroring phase", "Copy")
    return None


def _destination(args: Args, path: str) -> str:
    """The document of a copy's destination."""
    xml = xmltext.Builder()
    block = args.flag("blockdev")
    xml.start("disk", type="block" if block else "file")
    xml.leaf("source", **{"dev" if block else "file": path})
    if args.text("format") is not None:
        xml.leaf("driver", type=args.text("format"))
    xml.end("disk")
    return str(xml)


def blockjob(session: Session, args: Args) -> Output | None:
    """virDomainGetBlockJobInfo, virDomainBlockJobAbort, virDomainBlockJobSetSpeed."""
    for one, other in (("raw", "abort"), ("info", "abort"), ("raw", "async"), ("raw", "pivot"), ("info", "pivot")):
        args.exclusive(one, other)
    args.exclusive("bandwidth", "abort")
    domain, path = session.domain(args.required("domain")), args.required("path")
    if args.flag("abort") or args.flag("async") or args.flag("pivot"):
        flags = c.VIR_DOMAIN_BLOCK_JOB_ABORT_ASYNC if args.flag("async") else 0
        flags |= c.VIR_DOMAIN_BLOCK_JOB_ABORT_PIVOT if args.flag("pivot") else 0
        session.call("domain_block_job_abort", domain, path, flags)
        return None
    if args.text("bandwidth") is not None:
        flags = c.VIR_DOMAIN_BLOCK_JOB_SPEED_BANDWIDTH_BYTES if args.flag("bytes") else 0
        session.call("domain_block_job_set_speed", domain, path, _bandwidth(args), flags)
        return None
    flags = c.VIR_DOMAIN_BLOCK_JOB_INFO_BANDWIDTH_BYTES if args.flag("bytes") else 0
    found, kind, bandwidth, current, end = session.call("domain_get_block_job_info", domain, path, flags)
    if not found:
        return Plain("job", "" if args.flag("raw") or session.quiet else f"No current block job for {path}", {})
    name = eventnames.of(_TYPES, kind)
    data = {"type": name, "bandwidth": bandwidth, "current": current, "end": end}
    if args.flag("raw"):
        return Plain("job", f" type={name}\n bandwidth={bandwidth}\n cur={current}\n end={end}\n", data)
    share = int(current * 100 / end) if end else 0
    text = f"{name}: [{share:3d} %]"
    if bandwidth:
        rate = bandwidth if args.flag("bytes") else bandwidth * _MIB
        number, unit = units.pretty(rate)
        text += f"    Bandwidth limit: {rate} bytes/s ({number:.3f} {unit}/s)"
    return Plain("job", f"{text}\n", data)


def blockresize(session: Session, args: Args) -> None:
    """virDomainBlockResize."""
    domain, path = session.domain(args.required("domain")), args.required("path")
    size = args.scaled("size", 1024, 2**64 - 1) or 0
    flags = 0
    if size % 1024:
        flags |= c.VIR_DOMAIN_BLOCK_RESIZE_BYTES
    else:
        size //= 1024
    with failing(f"Failed to resize block device '{path}'"):
        session.call("domain_block_resize", domain, path, size, flags)
    session.say(f"Block device '{path}' is resized")


_DISK = {"path": "disk"}

COMMANDS = (
    Command(
        "blockcommit",
        "<domain> <path> [--bandwidth <number>] [--base <string>] [--shallow] [--top <string>] [--active] [--delete] "
        "[--wait] [--verbose] [--timeout <number>] [--pivot] [--keep-overlay] [--async] [--keep-relative] [--bytes]",
        "write what is in a disk's upper images into a lower one",
        blockcommit,
        kinds=_DISK,
    ),
    Command(
        "blockcopy",
        "<domain> <path> [--dest <string>] [--bandwidth <number>] [--shallow] [--reuse-external] [--blockdev] [--wait] "
        "[--verbose] [--timeout <number>] [--pivot] [--finish] [--async] [--xml <string>] [--format <string>] "
        "[--granularity <number>] [--buf-size <number>] [--bytes] [--transient-job] [--synchronous-writes] "
        "[--print-xml]",
        "copy a disk that is in use",
        blockcopy,
        kinds=_DISK,
        aliases={"raw": ("format", "raw")},
    ),
    Command(
        "blockjob",
        "<domain> <path> [--abort] [--async] [--pivot] [--info] [--bytes] [--raw] [--bandwidth <number>]",
        "show, slow down or end a job on a disk",
        blockjob,
        kinds=_DISK,
    ),
    Command(
        "blockpull",
        "<domain> <path> [--bandwidth <number>] [--base <string>] [--wait] [--verbose] [--timeout <number>] [--async] "
        "[--keep-relative] [--bytes]",
        "bring what is in a disk's lower images into its upper one",
        blockpull,
        kinds=_DISK,
    ),
    Command(
        "blockresize",
        "<domain> <path> <size:number>",
        "change the size of a disk that is in use",
        blockresize,
        kinds=_DISK,
    ),
)
