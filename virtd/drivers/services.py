"""How one driver asks another: as a client.

Inside a server it does so over the server's own socket, where a sibling process answers; where no server runs, in this
process. Either way it cannot tell, and need not.
"""

import os
from urllib.parse import quote

from virtd.drivers import identities, open_connection
from virtd.drivers.base import Connection, Context


def connect(context: Context, scheme: str) -> Connection:
    """A connection to a service of the same instance; the caller closes it.

    Args:
        context: of the connection for whose client the service is asked.
        scheme: the service's URI scheme: 'network', 'storage', 'secret'.

    Raises:
        VirtError: as open_connection.
    """
    own = context._replace(identity=context.identity._replace(transport="local"))
    mode, socket = context.paths.mode, f"{context.paths.sockets}/libvirt-sock"
    if context.identity.transport != "local" and os.path.exists(socket):
        connection = open_connection(f"{scheme}+unix:///{mode}?socket={quote(socket)}", own)
        if context.identity.uid != os.geteuid():
            # Not we ask, but our client does, and gets what he may have.
            tell = connection.require("connect_set_identity", "virConnectSetIdentity")
            tell(identities.describe(context.identity), 0)
        return connection
    return open_connection(f"{scheme}:///{mode}", own)
