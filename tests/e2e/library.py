"""What a program does that uses the drivers as a library, with no server: the tests run this file.

python3 -m tests.e2e.library URI COMMAND [GUEST]

list, state, start, destroy     print the result
events                          print 'ready', then each life cycle event of the guest until it has stopped
"""

from __future__ import annotations

import os
import select
import sys

from virtd import constants as c
from virtd.drivers import open_connection
from virtd.drivers.base import Connection, Context, Identity
from virtd.errors import VirtError
from virtd.state import paths


def connect(uri: str) -> Connection:
    """A connection in this process, to the root that the environment names."""
    pid = os.getpid()
    return open_connection(uri, Context(paths.find(), Identity(os.geteuid(), os.getegid(), pid, "local"), pid))


def events(connection: Connection, name: str) -> None:
    """Print the life cycle events of a guest, to its end."""
    connection.require("connect_domain_event_callback_register_any", "")(c.VIR_DOMAIN_EVENT_ID_LIFECYCLE, None)
    print("ready", flush=True)
    while True:
        select.select(connection.event_fds(), [], [])
        for event in connection.read_events():
            domain, kind, detail = event.values[1]
            if domain.name == name:
                print(domain.name, domain.id, kind, detail, flush=True)
                if kind == c.VIR_DOMAIN_EVENT_STOPPED:
                    return


def main(uri: str, command: str, name: str = "") -> None:
    """Do one thing."""
    connection = connect(uri)
    try:
        if command == "events":
            events(connection, name)
        elif command == "list":
            domains, _ = connection.require("connect_list_all_domains", "")(1, 0)
            print(*(f"{domain.name}:{domain.id}" for domain in domains))
        else:
            procedure = {"start": "domain_create", "destroy": "domain_destroy", "state": "domain_get_state"}[command]
            domain = connection.require("domain_lookup_by_name", "")(name)
            arguments = (domain, 0) if command == "state" else (domain,)
            print(connection.require(procedure, "")(*arguments))
    except VirtError as error:
        sys.exit(f"{error.code} {error.message}")
    finally:
        connection.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
