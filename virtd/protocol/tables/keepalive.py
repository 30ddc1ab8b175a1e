"""The keepalive program: two messages without content, sent by either side, answered at once.

Its rules are in virtd.protocol.keepalive.
"""

from functools import partial

from virtd.protocol.procedure import EVENT, Procedure

NUMBER = 0x6B656570
VERSION = 1

P = partial(Procedure, "keepalive")

LIMITS: dict[str, int] = {}

TYPES: dict[str, str] = {}

PROCEDURES = (
    P(1, "PING", EVENT, "()"),
    P(2, "PONG", EVENT, "()"),
)
