"""The server: an accept loop, a process for each connection, and nothing of guests in either's memory.

    main.py        the command line, and what becomes a daemon
    config.py      virtd.conf
    log.py         one line for each event
    listeners.py   the sockets clients come in by
    accept.py      the accept loop: accepts, forks, reaps
    takeover.py    a new virtd takes the sockets from the running one
    spare.py       the life of a process that waits for clients and serves one after the other
    worker.py      one connection: the poll loop
    dispatch.py    from a call's bytes to a driver's method, and back
    calls.py       calls in processes of their own
    streams.py     data beside calls
    auth.py        who is at the other end

Imports point down this list, never up; drivers and protocol know nothing of any of it.
"""
