"""The supervisor: the process beside each QEMU, its parent, and the only one that records what becomes of the guest.

It starts QEMU, reaps it, listens on a monitor of its own, writes the status file and the journal, carries out what
the guest's own shutdowns and resets lead to, and cleans up at the end. It holds no state but what is in the status
file: killed, it is replaced by the next process that looks (adoption.py), and the replacement takes over a QEMU which
is not its child, by pidfd and sockets.

It never blocks on QEMU: whatever it sends there it does not wait for. It takes no state change lock but the one of a
guest that has ended, and only if that is free.
"""

import os
import select
import signal
import socket
import time

from virtd import constants as c
from virtd import deadlines
from virtd.drivers.qemu import shape
from virtd.drivers.qemu.guest import Guest, listen
from virtd.drivers.qemu.monitor import onlookers, qmp
from virtd.drivers.qemu.run import perf, reactions
from virtd.drivers.qemu.run.callers import Caller, Callers
from virtd.drivers.qemu.run.ending import finish
from virtd.drivers.qemu.run.waiting import Waiting
from virtd.drivers.qemu.status import Status
from virtd.errors import VirtError
from virtd.state import files, sockets
from virtd.state.commit import Generation
from virtd.state.faults import point
from virtd.state.process import Process, log, stat_fields

# How long QEMU may take to end when it is asked to: it may have to flush caches to slow storage.
TERM_SECONDS = 10.0
# … and to end when it is killed, before that is reported as impossible (uninterruptible sleep).
KILL_SECONDS = 5.0
# A monitor connection that breaks although QEMU runs is made anew after this time.
RECONNECT_SECONDS = 1.0
# A full disk is tried again after this time.
RETRY_SECONDS = 1.0


class Supervisor:
    """The supervision of one guest, in the process that does it.

    Args:
        guest: the guest's directory.
        generation: the instance's generation, where everything is committed.
        definition: path of the guest's persistent definition, which exists or not.
        status: the guest's facts so far.
        child: whether QEMU is a child of this process, to be reaped.
    """

    def __init__(self, guest: Guest, generation: Generation, definition: str, status: Status, *, child: bool) -> None:
        assert status.process is not None
        self._guest = guest
        self._generation = generation
        self._definition = definition
        self._onlookers = onlookers.path(os.path.dirname(guest.directory))
        self._status = status
        self._child = child
        self._pid = status.process.pid
        self._qemu = os.pidfd_open(self._pid)
        self._counters = perf.Counters(self._pid)
        self._waiting = Waiting()
        self._callers = Callers(self._waiting, listen(guest.control_path), self._do, self._gone)
        self._events: socket.socket | None = None
        self._channels: dict[str, socket.socket] = {}  # connections that are kept for those who ask, by path
        self._output = bytearray()
        self._reader = qmp.Reader(guest.name)
        self._untold: list[reactions.Told] = []  # events that are not in the journal yet
        self._unwritten = False  # the status file is not yet what the status is: the disk did not take it
        self._end_reason: int | None = None
        self._ended = False
        self._starting: tuple[Caller, int] | None = None  # who waits for the guest to run; STARTED_* detail
        self._waiting.watch(self._qemu, self._exited)
        self._connect()
        if status.owner is not None:
            self._follow(status.owner)

    def run(self) -> None:
        """Supervise until QEMU has ended and everything has been cleaned up."""
        while not self._ended:
            self._waiting.turn()

    def attach(self, leash: socket.socket) -> None:
        """Serve the process that starts the guest: if it dies before the guest is published, the guest ends."""
        self._callers.add(leash, starter=True)

    def adopt(self) -> None:
        """Begin where another supervisor has left off."""
        self._count_again()
        if not self._status.active:
            self._end(c.VIR_DOMAIN_SHUTOFF_FAILED)

    # QEMU's own monitor of events

    def _connect(self) -> None:
        if self._ended or self._events is not None:
            return
        try:
            self._events = sockets.connect(self._guest.events_path, timeout=0.1)
        except OSError:
            self._waiting.after(RECONNECT_SECONDS, self._connect)
            return
        self._events.setblocking(False)
        self._reader = qmp.Reader(self._guest.name)
        self._output.clear()
        self._waiting.watch(self._events.fileno(), self._hear)
        self._send("qmp_capabilities")
        # What happened while nobody listened: the answer is compared with the status.
        self._send("query-status")
        if self._status.channels:
            self._send("query-chardev")

    def _send(self, command: str) -> None:
        if self._events is None:
            return
        self._output += qmp.encode_command(command, None, command)
        self._flush()

    def _flush(self) -> None:
        if self._events is None:
            return
        try:
            while self._output:
                del self._output[: self._events.send(self._output)]
        except BlockingIOError:
            pass
        except OSError:
            self._output.clear()  # the end of the connection is seen by reading
        self._waiting.change(self._events.fileno(), select.POLLIN | (select.POLLOUT if self._output else 0))

    def _hear(self) -> None:
        if self._events is None:
            return
        self._flush()
        try:
            data = self._events.recv(65536)
            messages = self._reader.feed(data) if data else None
        except BlockingIOError:
            return
        except (OSError, VirtError):
            messages = None
        if messages is None:
            self._waiting.unwatch(self._events.fileno())
            self._events.close()
            self._events = None
            self._waiting.after(RECONNECT_SECONDS, self._connect)
            return
        for message in messages:
            if isinstance(message, qmp.Event):
                self._record(message)
            elif isinstance(message, qmp.Answer):
                self._hear_answer(message)

    def _hear_answer(self, answer: qmp.Answer) -> None:
        if answer.id == "query-status" and answer.error is None:
            self._reconcile(answer.result)
        elif answer.id == "query-chardev" and answer.error is None:
            self._reconcile_channels(answer.result)
        elif answer.id == "cont" and answer.error is not None and self._starting:
            # The start has failed at its last step.
            caller, _ = self._starting
            self._starting = None
            self._callers.reply(caller, error=qmp.QMPError("cont", *answer.error))
        elif answer.error is not None:
            log(f"QEMU refused '{answer.id}': {answer.error[1]}")

    def _record(self, event: qmp.Event) -> None:
        """Commit what an event means, then do what follows from it."""
        if self._status.active and onlookers.anybody(self._onlookers):
            self._commit([reactions.passed_on(event)])
        before = self._status.encode()
        try:
            reaction = reactions.react(self._status, event)
        except VirtError as error:
            log(f"event {event.name} of QEMU not understood: {error}")
            return
        if self._starting and event.name == "RESUME":
            self._publish(reaction)
        elif self._status.active and (reaction.events or self._status.encode() != before):
            self._commit(reaction.events)
        for command in reaction.commands:
            self._send(command)
        if reaction.end is not None and self._end_reason is None:
            self._end(reaction.end)
        self._answer_synced()

    def _reconcile(self, result: object) -> None:
        """Take over a change of the CPUs' state that nobody has recorded."""
        running = shape.as_table(result, "query-status").get("running") is True
        known = self._status.state
        if not self._status.active or (known, running) not in (
            (c.VIR_DOMAIN_RUNNING, False),
            (c.VIR_DOMAIN_PAUSED, True),
        ):
            return
        self._record(qmp.Event("RESUME" if running else "STOP", {}, self._status.seen))

    def _reconcile_channels(self, result: object) -> None:
        """The same for programs in the guest that have opened channels, or closed them."""
        for one in shape.as_tables(result, "query-chardev"):
            alias = shape.text(one, "label").removeprefix("char")
            if alias in self._status.channels:
                data: shape.Table = {"id": alias, "open": shape.truth(one, "frontend-open")}
                self._record(qmp.Event("VSERPORT_CHANGE", data, self._status.seen))

    def _commit(self, events: list[reactions.Told]) -> bool:
        """Let everybody see the status as it is now, and hear of events; what the disk does not take is tried again."""
        status = self._status
        self._untold += events
        retried = self._unwritten
        try:
            with self._generation.commit() as change:
                status.publish(self._guest.status_path, change)
                for name, arguments in self._untold:
                    change.event("qemu", name, domain=[status.name, status.uuid, status.id], args=arguments)
        except VirtError as error:
            self._unwritten = True
            if not retried:
                log(f"what has happened cannot be written down: {error}")
                self._waiting.after(RETRY_SECONDS, self._retry)
            return False
        self._unwritten = False
        self._untold.clear()
        point("guest.recorded")
        return True

    def _retry(self) -> None:
        if self._unwritten and not self._ended and not self._commit([]):
            self._waiting.after(RETRY_SECONDS, self._retry)
        self._answer_synced()

    # The end

    def _follow(self, owner: Process) -> None:
        """End the guest when the process it is bound to has ended."""
        try:
            descriptor = os.pidfd_open(owner.pid)
        except ProcessLookupError:
            self._end(c.VIR_DOMAIN_SHUTOFF_DESTROYED)
            return
        if not owner.alive():
            self._end(c.VIR_DOMAIN_SHUTOFF_DESTROYED)
            return

        def gone() -> None:
            self._waiting.unwatch(descriptor)
            self._end(c.VIR_DOMAIN_SHUTOFF_DESTROYED)

        self._waiting.watch(descriptor, gone)

    def _end(self, reason: int, *, graceful: bool = False) -> None:
        """Ask QEMU to end, and insist unless that was to be graceful; _exited() does the rest."""
        self._end_reason = reason
        # A stopped process would not even hear of SIGTERM.
        if _stopped(self._pid) and not graceful:
            self._kill()
            return
        self._signal(signal.SIGTERM)
        self._waiting.after(TERM_SECONDS, self._give_up if graceful else self._kill)

    def _kill(self) -> None:
        if not self._ended:
            self._signal(signal.SIGKILL)
            self._waiting.after(KILL_SECONDS, lambda: self._refuse("SIGKILL"))

    def _signal(self, number: signal.Signals) -> None:
        try:
            signal.pidfd_send_signal(self._qemu, number)
        except ProcessLookupError:
            pass  # it has ended by itself, which the poll will say next

    def _give_up(self) -> None:
        if not self._ended:
            self._end_reason = None
            self._refuse("SIGTERM")

    def _refuse(self, sent: str) -> None:
        """Tell those who wait for QEMU's end that it does not come."""
        text = f"Failed to terminate process {self._pid} of guest '{self._guest.name}' with {sent}"
        error = VirtError(c.VIR_ERR_SYSTEM_ERROR, f"{text}: Device or resource busy")
        for caller in [caller for caller in self._callers if caller.awaits_end]:
            caller.awaits_end = False
            self._callers.reply(caller, error=error)

    def _exited(self) -> None:
        """QEMU has ended: record it, clean up, and let everybody go who waited for it."""
        self._ended = True
        if self._events is not None:
            self._hear_the_rest()
        code = _reap(self._pid) if self._child else None
        log(f"QEMU has ended{'' if code is None else f' with {_describe(code)}'}")
        starter = next((caller for caller in self._callers if caller.starter), None)
        finish(self._guest, self._generation, self._definition, self._status, self._end_reason)
        for caller in self._callers:
            if caller.awaits_end:
                self._callers.reply(caller)
        if starter is not None and not self._status.active:
            self._callers.answer(starter, {"exited": True})

    def _hear_the_rest(self) -> None:
        """What QEMU still said before it ended, a SHUTDOWN among it."""
        while self._events is not None:
            before = self._events
            self._hear()
            if self._events is before and not deadlines.readable(before.fileno(), 0):
                break

    # Those who ask

    def _gone(self, caller: Caller) -> None:
        if caller.starter and not self._status.active:
            log("the process that was starting the guest has ended: the start is undone")
            self._end(c.VIR_DOMAIN_SHUTOFF_FAILED)

    def _do(self, caller: Caller, request: shape.Table) -> None:
        if self._ended:
            raise VirtError(c.VIR_ERR_OPERATION_INVALID, "domain is not running")
        what = shape.text(request, "do")
        if what == "expect":
            self._status.expected[shape.text(request, "event")] = shape.number(request, "reason")
            self._commit([])  # a supervisor that replaces this one has to know it
        elif what == "reboot":
            self._status.reboots = shape.truth(request, "wanted")
        elif what == "policy":
            self._status.policy[shape.text(request, "event")] = shape.text(request, "action")
            self._commit([])
        elif what == "facts":
            self._status.vcpus = shape.number(request, "vcpus", self._status.vcpus)
            for key, known in (("disks", self._status.disks), ("thresholds", self._status.thresholds)):
                for node in (named := shape.table(request, key, {})):
                    known[node] = shape.texts(named, node)
            forgotten = shape.texts(request, "forget", [])
            self._status.gone = [alias for alias in self._status.gone if alias not in forgotten]
            self._commit([])
        elif what == "count":
            self._count(shape.texts(request, "events"))
        elif what == "counted":
            self._callers.answer(caller, {"ok": True, "counters": self._counters.read()})
            return
        elif what == "channel":
            self._lend(caller, shape.text(request, "path"), anew=shape.truth(request, "anew"))
            return
        elif what == "sync":
            caller.awaits_seen = shape.number(request, "seen")
            self._answer_synced()
            return
        elif what == "destroy":
            point("guest.to-destroy")
            caller.awaits_end = True
            reason, graceful = shape.number(request, "reason"), shape.truth(request, "graceful")
            self._end(reason, graceful=graceful)
            return
        elif what == "publish" and caller.starter:
            self._starting = caller, shape.number(request, "detail")
            if shape.truth(request, "paused"):
                self._status.state, self._status.reason = c.VIR_DOMAIN_PAUSED, c.VIR_DOMAIN_PAUSED_USER
                event: reactions.Told = (
                    "lifecycle",
                    [c.VIR_DOMAIN_EVENT_SUSPENDED, c.VIR_DOMAIN_EVENT_SUSPENDED_PAUSED],
                )
                self._publish(reactions.Reaction(events=[event]))
            else:
                self._status.state, self._status.reason = c.VIR_DOMAIN_PAUSED, c.VIR_DOMAIN_PAUSED_STARTING_UP
                self._status.expected["RESUME"] = shape.number(request, "reason")
                self._send("cont")
            return
        else:
            raise VirtError(c.VIR_ERR_INTERNAL_ERROR, f"unknown request '{what}'")
        self._callers.reply(caller)

    def _lend(self, caller: Caller, path: str, *, anew: bool) -> None:
        """Give a connection with a channel, which stays open here; two do not use it at once: they hold a lock."""
        if anew and path in self._channels:
            self._channels.pop(path).close()
        if path not in self._channels:
            try:
                self._channels[path] = sockets.connect(path, timeout=0.1)
            except OSError as error:
                raise files.os_error(error, "cannot connect to the guest agent's channel") from None
        socket.send_fds(caller.socket, [b'{"ok": true}\n'], [self._channels[path].fileno()], socket.MSG_DONTWAIT)

    def _count_again(self) -> None:
        """Keep the counters that another supervisor has kept, from 0 on."""
        for name in self._status.counted:
            try:
                self._counters.enable(name)
            except VirtError as error:
                log(error.message)

    def _count(self, events: list[str]) -> None:
        """Keep these performance counters, and no others."""
        for name in events:
            self._counters.enable(name)
        for name in self._status.counted:
            if name not in events:
                self._counters.disable(name)
        self._status.counted = events
        if self._status.active:
            self._commit([])

    def _publish(self, reaction: reactions.Reaction) -> None:
        """The start has succeeded: from now on the guest counts as running, and outlives its starter."""
        assert self._starting is not None
        caller, detail = self._starting
        self._starting = None
        self._status.started = time.time()
        started: reactions.Told = ("lifecycle", [c.VIR_DOMAIN_EVENT_STARTED, detail])
        # libvirt tells of the start last when the guest runs, first when it does not.
        running = self._status.state == c.VIR_DOMAIN_RUNNING
        told = [*reaction.events, started] if running else [started, *reaction.events]
        if self._commit(reactions.agent_started(self._status) + told):
            self._callers.reply(caller)
        else:
            text = f"the status of guest '{self._guest.name}' cannot be written"
            self._callers.reply(caller, error=VirtError(c.VIR_ERR_WRITE_FAILED, text))
            self._end(c.VIR_DOMAIN_SHUTOFF_FAILED)

    def _answer_synced(self) -> None:
        if self._unwritten:
            return
        for caller in self._callers:
            if caller.awaits_seen is not None and caller.awaits_seen <= self._status.seen:
                caller.awaits_seen = None
                self._callers.reply(caller)


def _stopped(pid: int) -> bool:
    """Whether a process is stopped by a signal or a tracer (proc(5), state T or t)."""
    fields = stat_fields(pid)
    return fields is not None and fields[0] in (b"T", b"t")


def _reap(pid: int) -> int | None:
    try:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    except ChildProcessError:
        return None


def _describe(code: int) -> str:
    return f"exit code {code}" if code >= 0 else f"signal {signal.Signals(-code).name}"
