"""Why a command did not do what it was asked to: the sentences that stand on standard error behind "error: ".

virsh says first what failed, then why, each on a line of its own.
"""

from __future__ import annotations

from virtd.errors import VirtError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType


class Failure(Exception):
    """A command failed.

    Args:
        messages: what to say, a line each; none if all has been said.
        cause: the error behind it, which is said last, and for which there may be a hint.
    """

    def __init__(self, *messages: str, cause: VirtError | None = None) -> None:
        super().__init__(*messages)
        self.messages = [*messages, cause.message] if cause is not None else [*messages]
        self.cause = cause


class failing:  # noqa: N801
    """A context that says of any VirtError inside what has failed by it.

    Args:
        message: what has failed.
    """

    def __init__(self, message: str) -> None:
        self.message = message

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, VirtError):
            raise Failure(self.message, cause=error) from error
