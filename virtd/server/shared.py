"""What the accept loop gives to each process it forks, and what such a process must not pass on to its own children."""

import mmap
import os
from typing import TYPE_CHECKING

from virtd.server.config import Config
from virtd.server.listeners import Listener
from virtd.server.reports import Reports
from virtd.state.paths import Paths

if TYPE_CHECKING:
    from virtd.server.front import Target


class Shared:
    """What the accept loop and all its children have in common.

    Args:
        config: the settings; children keep those they were forked with.
        paths: the instance's directories.
        listeners: the Unix sockets on which children wait.
        alone: there is no accept loop: the process was started for one client.
        target: where to forward to, with --remote; None: clients are served here.

    Attributes:
        reports: the way to the accept loop.
        lifeline: a pipe that ends when the accept loop does; -1 if there is none.
    """

    def __init__(
        self,
        config: Config,
        paths: Paths,
        listeners: list[Listener],
        *,
        alone: bool = False,
        target: "Target | None" = None,
    ) -> None:
        self.config = config
        self.target = target
        self.paths = paths
        self.listeners = listeners
        self.reports = Reports()
        self.lifeline, self.lifeline_writer = (-1, -1) if alone else os.pipe()
        self._page = mmap.mmap(-1, mmap.PAGESIZE)
        self._private: set[int] = set()

    @property
    def ask(self) -> bool:
        """Whether clients must be passed to the accept loop, because a limit is near. Seen by all at once."""
        return self._page[0] != 0

    @ask.setter
    def ask(self, value: bool) -> None:
        self._page[0] = value

    def close(self) -> None:
        """Let go of it all; nobody was forked."""
        self.reports.close()
        self._page.close()
        for descriptor in {self.lifeline, self.lifeline_writer} - {-1}:
            os.close(descriptor)

    def keep_private(self, descriptor: int) -> None:
        """Name a descriptor that the process's own children have to close."""
        self._private.add(descriptor)

    def descriptors(self) -> set[int]:
        """What a forked child of a worker has to close."""
        sockets = {listener.sock.fileno() for listener in self.listeners}
        return {fd for fd in {*sockets, *self._private, self.lifeline, *self.reports.descriptors()} if fd >= 0}
