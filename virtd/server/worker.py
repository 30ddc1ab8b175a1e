"""One connection: a single-threaded poll loop that is never away for longer than a moment.

It reads, finds what serves a call, and does at once what is done at once; a query it tries for a moment; everything
else goes to processes of their own (calls.py), so that however many calls wait, pings are answered, streams flow
and events arrive. Towards a client that takes nothing it stops making anything: replies wait with those who made
them, streams in their descriptors, events in their journal. From a client that asks too much at once it stops reading.

The worker ends with its client: streams and queries at once, changes when they are done. What it knows about guests
it learned for a single call.
"""

import math
import os
import signal
import time
from typing import TYPE_CHECKING

from virtd import deadlines
from virtd.drivers.base import Stream
from virtd.protocol.framing import SMALLEST, Framer, FramingError
from virtd.protocol.keepalive import KeepAlive, PeerLostError, answer, is_keepalive
from virtd.protocol.messages import CALL, CALL_WITH_FDS, MESSAGE, STREAM, STREAM_HOLE, Message, make_event
from virtd.protocol.procedure import CHANGE, INSTANT
from virtd.protocol.programs import BY_NAME
from virtd.server import auth, log
from virtd.server.calls import MOMENT, Call, Calls
from virtd.server.channel import CHUNK, Channel, ChannelClosedError
from virtd.server.dispatch import Answer, Dispatcher, Entry, activity, close_all, error_bytes
from virtd.server.loop import READ, WRITE, Loop
from virtd.server.process import RETIRE, Signals, title
from virtd.server.reports import KNOWN
from virtd.server.session import Session
from virtd.server.shared import Shared
from virtd.server.streams import Streams

if TYPE_CHECKING:
    from virtd.server.front import Front

LAST_CALLS = 10.0  # seconds that calls in flight get after SIGTERM
LONELY = 300.0  # seconds that changes get whose client has left, before they are left to themselves
FLOOD = 1 << 18  # bytes of a stream's data that are read at one time
ANONYMOUS = 60.0  # seconds for a client from the network to say anything
FOREVER = math.inf


class Worker:
    """A client and what is done for it.

    Args:
        channel: the client.
        peer: who it is.
        shared: what the process was given.
        signals: the process's signals.

    Attributes:
        leaving: whether the process has been told to end with this client, or when its calls are done.
    """

    def __init__(self, channel: Channel, peer: auth.Peer, shared: Shared, signals: Signals) -> None:
        requests, interval, count = shared.config.per_client
        self.channel = channel
        self.shared = shared
        self.signals = signals
        self.session = Session(peer, shared.paths)
        self.dispatcher = Dispatcher(self.session, channel.passes_fds)
        self.loop = Loop()
        self.framer = Framer()
        self.calls = Calls(
            self.dispatcher,
            self.loop,
            requests,
            label=self._label,
            let_go=self._let_go,
            answer=self._answer_call,
            changed=self._changed,
        )
        self.streams = Streams(self.loop, self.send, self._pour, self._settle)
        self.keepalive = KeepAlive(interval, count, time.monotonic())
        self.leaving = False
        self.gone = False  # the client is
        self.stopping = False  # SIGTERM came
        self._events: set[int] = set()  # descriptors that say that there are events
        self._more_events = False
        self._flooded = False  # the last thing that came was data of a stream
        self._torn: tuple[Message, int] | None = None  # a stream's packet, and how many bytes of it are to come
        self._resume = False  # there may be messages that were read when there was no room for them
        self._limit = FOREVER  # for the client to say something, or for calls to end
        self._interest = (-1, -1)
        if peer.known:
            self.framer.unlimit()
        else:
            self._limit = time.monotonic() + ANONYMOUS

    # The loop

    def run(self) -> bool:
        """Serve the client to its end.

        Returns:
            Whether the process is as it was before, and may serve another client.
        """
        self.loop.watch(self.signals.fileno(), READ, self._signalled)
        if self.shared.lifeline >= 0:
            self.loop.watch(self.shared.lifeline, READ, self._orphaned)
        self._changed()
        while not self.gone:
            self.loop.turn(self._timeout())
            self._due()
        return self._end()

    def _timeout(self) -> float | None:
        if self._resume or (self._more_events and not self.channel.full):
            return 0
        end = min(self._limit, self.keepalive.due() or FOREVER, self.calls.next_deadline())
        return None if end == FOREVER else max(0.0, end - time.monotonic())

    def _due(self) -> None:
        """Do what is due without any descriptor having said so."""
        if self._resume:
            self._resume = False
            self._process()
        if self._more_events and not self.channel.full:
            self._read_events()
        if not (self.keepalive.active or self.calls.timed or self._limit != FOREVER or self.stopping):
            return
        now = time.monotonic()
        try:
            if ping := self.keepalive.tick(now):
                self.send(ping.to_bytes())
        except PeerLostError as error:
            log.warning(f"closing the connection: {error}")
            self.gone = True
        self.calls.expire(now)
        if self.stopping and not (self.calls.waiting or self.streams.working or self.channel.waiting):
            self.gone = True
        elif now >= self._limit:
            what = "its calls do not end" if self.stopping else f"it has said nothing for {ANONYMOUS:.0f} s"
            log.warning(f"closing the connection: {what}")
            self.gone = True

    def _settle(self) -> None:
        """Wait for the client as far as there is room for what it sends, and for what it is sent."""
        if self.gone:
            return
        full = self.channel.full
        # What waits behind a stream's packet would have to be copied.
        self.loop.shut(full or (self.channel.waiting and len(self.streams) > 0))
        room = not (full or self.calls.crowded or self.streams.crowded or self.stopping or self.session.closing)
        interest = (READ if room else 0, WRITE if self.channel.waiting else 0)
        if interest == self._interest:
            return
        was_reading, self._interest = self._interest[0] == READ, interest
        reader, writer = self.channel.reader, self.channel.writer
        if reader == writer:
            self.loop.watch(reader, interest[0] | interest[1], self._ready)
        else:
            self.loop.watch(reader, interest[0], self._ready)
            if interest[1]:
                self.loop.watch(writer, WRITE, self._ready)
            else:
                self.loop.unwatch(writer)
        if room and not was_reading:
            self._resume = True

    def _ready(self, events: int) -> None:
        try:
            if events & WRITE:
                self.channel.flush()
                if self.session.closing and not self.channel.waiting:
                    self.gone = True
            if events & READ and self._interest[0]:
                if self._torn is not None:
                    self._continue(*self._torn)
                else:
                    # Where a packet of a stream has just ended, another one begins, whose data had better stay there.
                    data, fds = self.channel.receive(SMALLEST if self._flooded else CHUNK)
                    self._flooded = False
                    self.framer.receive(data, fds)
                    self._process()
            elif events & ~(READ | WRITE):
                self.gone = True
        except ChannelClosedError:
            self.gone = True
        if self._interest != (READ, 0) or self.channel.waiting or self.streams:
            self._settle()

    def send(self, data: bytes, fds: tuple[int, ...] = ()) -> None:
        """Send bytes to the client, and descriptors after them, which are closed then."""
        if self.gone:
            close_all(fds)
            return
        try:
            self.channel.send(data, fds)
        except ChannelClosedError:
            self.gone = True
            return
        if self.channel.waiting:
            self._settle()

    def _pour(self, head: bytes, pipe: int, length: int) -> None:
        """Send data of a stream from a pipe to the client."""
        try:
            self.channel.pour(head, pipe, length)
        except ChannelClosedError:
            self.gone = True
            return
        if self.channel.waiting:
            self._settle()

    # What comes from the client

    def _process(self) -> None:
        """Take what was read from the client message by message, while there is room."""
        try:
            while self._interest[0] and not self.gone:
                message = self.framer.next_message()
                if message is None:
                    if self.streams and self._torn is None:
                        self._begin()
                    break
                self._message(message)
        except FramingError as error:
            log.warning(f"closing the connection: {error}")
            self.gone = True

    def _begin(self) -> None:
        """Take the beginning of a stream's packet, if that is what was read last."""
        self._torn = self.framer.begun()
        if self._torn is not None:
            self.streams.begin(*self._torn)
            self._flooded = True

    def _continue(self, message: Message, missing: int) -> None:
        """Take more data of a stream's packet, of which the beginning has been taken."""
        if self.keepalive.active:
            self.keepalive.heard(time.monotonic())
        moved = self.streams.splice(message, self.channel.reader, missing) if self.channel.plain else None
        if moved is None:
            data, fds = self.channel.receive(min(missing, FLOOD))
            close_all(fds)
            moved = len(data)
            self.streams.more(message._replace(payload=data))
        self._torn = (message, missing - moved) if moved < missing else None

    def _message(self, message: Message) -> None:
        if self.keepalive.active:
            self.keepalive.heard(time.monotonic())
        kind = message.type
        if kind in (CALL, CALL_WITH_FDS):
            self._call(message)
        elif kind in (STREAM, STREAM_HOLE):
            self.streams.packet(message)
        elif kind == MESSAGE and is_keepalive(message):
            if pong := answer(message):
                self.send(pong.to_bytes())
        else:
            close_all(message.fds)
        if self._limit != FOREVER and not self.session.peer.known and not self.stopping:
            self._known()

    def _known(self) -> None:
        """The client has spoken, which without authentication is all that can be asked of it."""
        self.session.peer = self.session.peer._replace(known=True)
        self._limit = FOREVER
        self.framer.unlimit()
        self.shared.reports.send(KNOWN)

    def _call(self, message: Message) -> None:
        try:
            entry, args = self.dispatcher.prepare(message)
        except Exception as problem:
            close_all(message.fds)
            self.send(error_bytes(message, problem))
            return
        if message.fds and not entry.procedure.fds_in_call:
            close_all(message.fds)
            message = message._replace(fds=())
        if entry.kind == INSTANT:
            self._answer(entry, message, self.dispatcher.perform(entry, message, args))
            if not entry.procedure.opened or entry.procedure.subscribes:
                self._after(entry)
        elif entry.kind == CHANGE or not self._try(entry, message, args):
            self.calls.start(entry, message, args)

    def _try(self, entry: Entry, message: Message, args: tuple[object, ...]) -> bool:
        """Try a query for a moment; whether it has been answered."""
        if self.calls.busy_with(args[0] if args else None):
            return False
        title(f"worker for {self.session.label}: {activity(entry, args)}")
        try:
            with deadlines.limit(MOMENT):
                reply = self.dispatcher.perform(entry, message, args, patient=False)
        except deadlines.DeadlineExceeded:
            return False
        self._show()
        self._answer(entry, message, reply)
        return True

    def _answer(self, entry: Entry, message: Message, reply: Answer) -> None:
        """Send what a method has given in this process."""
        self.send(reply.data, reply.fds)
        stream = reply.stream
        if stream is None:
            return
        if stream.work is not None:
            log.error(f"{entry.activity} wants to work on after its reply, and is not done in a process of its own")
        self._open_stream(entry, message, stream, False, None)

    def _answer_call(self, call: Call, reply: Answer) -> None:
        """Send what a process has given."""
        self.send(reply.data, reply.fds)
        if reply.stream is not None:
            worker = call if call.works else None
            self._open_stream(call.entry, call.message, reply.stream, call.sparse, worker)

    def _open_stream(self, entry: Entry, message: Message, stream: Stream, sparse: bool, call: Call | None) -> None:
        if self.gone:
            if call is not None:
                call.kill(signal.SIGTERM)
            os.close(stream.descriptor)
            return
        direction = entry.procedure.stream or "both"
        self.streams.open(message, direction, stream, sparse=sparse, call=call)

    def _after(self, entry: Entry) -> None:
        """See what a call has changed of the session."""
        session = self.session
        self.calls.dismiss()
        if entry.procedure.subscribes:
            self._watch_events()
            return
        if session.keepalive and not self.keepalive.active:
            self.keepalive.start(time.monotonic())
        if session.closing:
            if not self.channel.waiting:
                self.gone = True
            return
        self.dispatcher.forget()
        self._show()

    # Events

    def _watch_events(self) -> None:
        connection = self.session.connection
        wanted = set(connection.event_fds()) if connection else set()
        for descriptor in self._events - wanted:
            self.loop.unwatch(descriptor)
        for descriptor in wanted - self._events:
            self.loop.watch(descriptor, READ, lambda _events: self._read_events(), gated=True)
        self._events = wanted

    def _read_events(self) -> None:
        """Send the next few events. There may be more than the descriptor says, so it is asked until there are none."""
        connection = self.session.connection
        if connection is None:
            return
        try:
            events = connection.read_events()
            self._more_events = bool(events)
            for event in events:
                procedure = BY_NAME[event.program].named[event.procedure]
                self.send(make_event(procedure, event.values).to_bytes())
        except Exception as problem:
            log.bug("events cannot be read; this client gets no more of them", problem)
            self._more_events = False
            for descriptor in self._events:
                self.loop.unwatch(descriptor)
            self._events = set()

    # The process

    def _signalled(self, _events: int) -> None:
        for number in self.signals.read():
            if number in (RETIRE, signal.SIGTERM):
                self.leaving = True
            if number == signal.SIGTERM:
                # The second one ends what the first one let go on.
                self._limit = time.monotonic() + (0.0 if self.stopping else LAST_CALLS)
                self.stopping = True
                self._changed()

    def _orphaned(self, _events: int) -> None:
        """The accept loop has ended without a word. The client stays; nobody new comes in by this process."""
        self.loop.unwatch(self.shared.lifeline)
        self.leaving = True
        for listener in self.shared.listeners:
            listener.sock.close()

    def _label(self) -> str:
        return self.session.label

    def _show(self) -> None:
        """Say in the title what is done now."""
        waiting = self.calls.running and [call for call in self.calls.running.values() if not call.answered]
        if waiting:
            more = self.calls.waiting - 1
            what = waiting[0].title + (f", {more} more" if more else "")
        else:
            what = f"{len(self.streams)} streaming" if self.streams else "idle"
        state = ", stopping" if self.stopping else ", client gone" if self.gone else ""
        title(f"worker for {self.session.label}: {what}{state}")

    def _changed(self) -> None:
        """A call has begun or ended."""
        self._show()
        self._settle()

    def _let_go(self) -> None:
        """In a forked child: close what is the worker's, so that it ends when the worker says so."""
        self.signals.close()
        for descriptor in (
            self.channel.descriptors()
            | self.streams.descriptors()
            | self.calls.descriptors()
            | self.shared.descriptors()
        ):
            os.close(descriptor)

    def _end(self) -> bool:
        """The client is gone, or is to go: end what was done for it."""
        for descriptor in {self.channel.reader, self.channel.writer, *self._events}:
            self.loop.unwatch(descriptor)
        self.loop.shut(False)
        self.streams.close_all()
        self.channel.close()
        close_all(self.framer.close())
        self.calls.client_gone()
        killed = not self.calls.running
        self._limit = min(self._limit, time.monotonic() + LONELY)
        while self.calls.running and time.monotonic() < self._limit:
            self._show()
            self.loop.turn(max(0.0, self._limit - time.monotonic()))
        if self.calls.running:
            if self.stopping:
                self.calls.kill_all()
            log.warning(f"the client is gone, and its calls are {'killed' if self.stopping else 'left to themselves'}")
            self.calls.abandon()
        return self.session.release() and killed


def serving(channel: Channel, peer: auth.Peer, shared: Shared, signals: Signals) -> "Worker | Front":
    """What serves one client in this process; arguments as for Worker."""
    if shared.target is None:
        return Worker(channel, peer, shared, signals)
    from virtd.server.front import Front

    return Front(channel, peer, shared, signals)
