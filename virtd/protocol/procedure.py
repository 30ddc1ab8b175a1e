"""What the table says of one procedure.

A line of a table reads, in this order:

    number       unique within its program
    name         libvirt's name; in lower case (with the program before it, unless that is "remote") the name
                 of the driver's method
    kind         INSTANT  answered from files, /proc and memory, in the worker, which may keep state for it
                 QUERY    asks a monitor or another outside party and changes nothing: tried in the worker for
                          a moment, then done again in a child of the worker, with patience
                 CHANGE   locks, starts, copies, waits: done in a child of the worker
                 EVENT    a message, not a call
    signature    "(arguments) -> (results)", or "(content)" of an event, in the notation of
                 virtd.protocol.notation
    api          the public function of libvirt which the call serves ("" if there is none)
    acl          what the caller must be allowed, in words parted by spaces: see virtd.protocol.access

and by keyword, where it is not the usual:

    aclfilter    the permission without which a member of a list is left out, or an event not sent
    stream       the call opens a stream: "read" (to the client), "write" (from it) or "both"
    sparse       the flag by which the caller asks for holes in that stream
    fds          file descriptors travel with the "call", the "reply" or "both"
    auth         False: may be called before authentication is complete
    opened       False: may be called before CONNECT_OPEN
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

INSTANT: Final = "instant"
QUERY: Final = "query"
CHANGE: Final = "change"
EVENT: Final = "event"


class Procedure:
    """One procedure or event of a program. Compared by identity; never changed once made.

    Attributes:
        method: the name of the driver's method.
        fds_in_call: whether file descriptors come with the call.
        fds_in_reply: whether file descriptors go back with the reply.
        subscribes: whether it may begin or end a client's interest in events.
    """

    __slots__ = (
        "acl", "aclfilter", "api", "auth", "fds", "fds_in_call", "fds_in_reply", "kind", "method", "name", "number",
        "opened", "program", "signature", "sparse", "stream", "subscribes",
    )  # fmt: skip

    def __init__(
        self,
        program: str,
        number: int,
        name: str,
        kind: str,
        signature: str,
        api: str = "",
        acl: str = "",
        *,
        aclfilter: str = "",
        stream: str | None = None,
        sparse: int = 0,
        fds: str | None = None,
        auth: bool = True,
        opened: bool = True,
    ) -> None:
        self.program = program
        self.number = number
        self.name = name
        self.kind = kind
        self.signature = signature
        self.api = api
        self.acl = acl
        self.aclfilter = aclfilter
        self.stream = stream
        self.sparse = sparse
        self.fds = fds
        self.auth = auth
        self.opened = opened
        method = name.lower()
        self.method = method if program == "remote" else f"{program}_{method}"
        self.subscribes = "EVENT" in name
        self.fds_in_call = fds in ("call", "both")
        self.fds_in_reply = fds in ("reply", "both")

    def __repr__(self) -> str:
        return f"<{self.program} {self.number} {self.name}>"
