"""A server that connects to itself: each connection is a process, so nobody waits for himself."""

import threading

from tests.helpers.waiting import wait_for
from tests.server.harness import guest


def test_nested_twenty_deep(server):
    """A call which waits for a call on a new connection to the same server, and so on."""
    with server.client() as client:
        client.call("domain_create", guest(f"nested 20 {server.sock}"))
    wait_for(lambda: not server.serving() and 5 <= len(server.spares()) <= 9)


def test_fifty_clients_do_so_at_once(server):
    problems = []

    def work():
        try:
            with server.client(timeout=100) as client:
                client.call("domain_create", guest(f"nested 3 {server.sock}"))
        except Exception as problem:
            problems.append(problem)

    threads = [threading.Thread(target=work) for _ in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []
    wait_for(lambda: not server.serving())
