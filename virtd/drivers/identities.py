"""Who a client is, as one server tells another and one driver the next (CONNECT_SET_IDENTITY, virConnectSetIdentity).

Numbers only: names would have to be looked up, and may hang with whoever is asked. A client from the network has no
number, and nothing is said of it; it is nobody then.
"""

from virtd import constants as c
from virtd.drivers.base import Identity
from virtd.protocol.records import TypedParam, TypedValue

NOBODY = -1  # the uid of whoever came over a network without saying who it is
_START_TIME = 19  # field 22 of /proc/PID/stat, counted from behind the name, proc(5)

# Each name and its type, as libvirt's own servers send them.
TYPES = {
    c.VIR_CONNECT_IDENTITY_UNIX_USER_ID: c.VIR_TYPED_PARAM_ULLONG,
    c.VIR_CONNECT_IDENTITY_UNIX_GROUP_ID: c.VIR_TYPED_PARAM_ULLONG,
    c.VIR_CONNECT_IDENTITY_PROCESS_ID: c.VIR_TYPED_PARAM_LLONG,
    c.VIR_CONNECT_IDENTITY_PROCESS_TIME: c.VIR_TYPED_PARAM_ULLONG,
    c.VIR_CONNECT_IDENTITY_USER_NAME: c.VIR_TYPED_PARAM_STRING,
    c.VIR_CONNECT_IDENTITY_GROUP_NAME: c.VIR_TYPED_PARAM_STRING,
    c.VIR_CONNECT_IDENTITY_SASL_USER_NAME: c.VIR_TYPED_PARAM_STRING,
    c.VIR_CONNECT_IDENTITY_X509_DISTINGUISHED_NAME: c.VIR_TYPED_PARAM_STRING,
    c.VIR_CONNECT_IDENTITY_SELINUX_CONTEXT: c.VIR_TYPED_PARAM_STRING,
}


def describe(identity: Identity) -> list[TypedParam]:
    """What there is to say of a client, for the params of CONNECT_SET_IDENTITY."""
    if identity.uid == NOBODY:
        return []
    found = {
        c.VIR_CONNECT_IDENTITY_UNIX_USER_ID: identity.uid,
        c.VIR_CONNECT_IDENTITY_UNIX_GROUP_ID: identity.gid,
    }
    if identity.pid > 0:
        found[c.VIR_CONNECT_IDENTITY_PROCESS_ID] = identity.pid
        try:
            with open(f"/proc/{identity.pid}/stat", "rb") as file:
                found[c.VIR_CONNECT_IDENTITY_PROCESS_TIME] = int(file.read().rpartition(b") ")[2].split()[_START_TIME])
        except (OSError, IndexError):
            pass  # it has ended since, or lives in another PID namespace
    return [TypedParam(name, TypedValue(TYPES[name], value)) for name, value in found.items()]
