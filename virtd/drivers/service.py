"""What the drivers of services (networks, storage, secrets) have in common: a few events, a URI of their own.

What a connection answers for itself is here; a service adds the procedures of its subject.
"""

from collections.abc import Iterable

from virtd import LIBVIRT_VERSION
from virtd import constants as c
from virtd.drivers.base import Context, Driver, Event
from virtd.drivers.callbacks import Callbacks
from virtd.state import journal
from virtd.state.commit import Generation

FEATURES = frozenset(
    {
        c.VIR_DRV_FEATURE_FD_PASSING,
        c.VIR_DRV_FEATURE_TYPED_PARAM_STRING,
        c.VIR_DRV_FEATURE_PROGRAM_KEEPALIVE,
        c.VIR_DRV_FEATURE_REMOTE_EVENT_CALLBACK,
        c.VIR_DRV_FEATURE_REMOTE_CLOSE_CALLBACK,
    }
)


class Service(Driver):
    """Base of a service's driver, or of its parts."""

    scheme = ""  # of its URI; also the source of its events
    noun = ""  # what its events are of, for messages

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.paths = context.paths
        self.generation = Generation(context.paths.runtime)
        self.callbacks = Callbacks(self.generation, self.scheme, self.noun)

    def messages(self, record: journal.Record) -> Iterable[Event]:
        """The messages for this client that a record of this service leads to."""
        raise NotImplementedError

    def event_fd(self) -> int | None:
        return self.callbacks.fileno()

    def read_events(self) -> list[Event]:
        return self.callbacks.read(self.messages)

    def close(self) -> None:
        self.callbacks.close()
        super().close()

    def connect_get_type(self) -> str:
        """virConnectGetType."""
        return self.scheme

    def connect_get_lib_version(self) -> int:
        """virConnectGetLibVersion: the version of libvirt that virtd implements."""
        return LIBVIRT_VERSION

    def connect_get_uri(self) -> str:
        """virConnectGetURI."""
        return f"{self.scheme}:///{self.paths.mode}"

    def connect_is_secure(self) -> int:
        """virConnectIsSecure: the driver is local; whether the way to it is, the client knows itself."""
        return 1

    def connect_supports_feature(self, feature: int) -> int:
        """virConnectSupportsFeature (VIR_DRV_FEATURE_*)."""
        return int(feature in FEATURES)
