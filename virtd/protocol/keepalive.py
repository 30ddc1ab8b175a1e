"""Whether the peer of a connection is still there: counting pings, with the time as an argument.

Each side may send PING, which the other answers by PONG at once, before whatever else it has to do. Any message
from the peer is a sign of life. After `count` pings in a row without one, and another interval, it is given up.
A server pings only clients that announced (by asking for VIR_DRV_FEATURE_PROGRAM_KEEPALIVE) that they know how to
answer; until then `active` stays false.

This module knows neither clocks nor sockets: times are seconds on whatever clock the caller goes by.
"""

from virtd.protocol.messages import MESSAGE, PING, PONG, Message


def answer(message: Message) -> Message | None:
    """The PONG that is due if the message is a PING."""
    return PONG if is_keepalive(message) and message.procedure == PING.procedure else None


def is_keepalive(message: Message) -> bool:
    """Whether the message is of the keepalive program, and so not for anyone else."""
    return message.program == PING.program and message.type == MESSAGE


class PeerLostError(Exception):
    """The peer has not been heard of for too long."""


class KeepAlive:
    """The pings of one connection.

    Args:
        interval: seconds of silence before a ping; not positive: never ping.
        count: how many pings may go unanswered.
        now: the time.
    """

    def __init__(self, interval: float, count: int, now: float) -> None:
        self.interval = interval
        self.count = count
        self.active = False
        self._left = count
        self._since = now

    def start(self, now: float) -> None:
        """From now on ping the peer, who knows how to answer."""
        self.active = self.interval > 0
        self.heard(now)

    def heard(self, now: float) -> None:
        """A message came from the peer."""
        self._left = self.count
        self._since = now

    def due(self) -> float | None:
        """When `tick` is to be called next; None if never."""
        return self._since + self.interval if self.active else None

    def tick(self, now: float) -> Message | None:
        """The ping to send, if it is time for one.

        Raises:
            PeerLostError: it is time to give the peer up.
        """
        due = self.due()
        if due is None or now < due:
            return None
        if self._left == 0:
            seconds = round((self.count + 1) * self.interval)
            raise PeerLostError(f"no sign of life after {self.count} keepalive messages in {seconds} seconds")
        self._left -= 1
        self._since = now
        return PING
