"""The server: an accept loop, a process for each connection, and nothing of guests in either's memory.

    main.py, daemon.py      the command line; becoming a daemon
    inetd.py                one client on standard input
    options.py, config.py   virtd.conf: its settings, what the file says (its syntax: virtd/conffile.py)
    rehearsal.py, layout.py what all workers share, made ready before the first fork; where in memory it lies
    accept.py, children.py  the accept loop: forks, counts, reaps
    takeover.py             a new virtd takes the sockets from the running one
    listeners.py            the sockets by which clients come in
    spare.py, refusal.py    the life of a process that waits for clients; saying no to one
    shared.py, reports.py   what the accept loop and its children have in common; what they tell it
    worker.py               one connection: the poll loop
    streams.py              data beside calls
    calls.py, performer.py  calls in processes of their own: what their worker does, and what runs in them
    dispatch.py             from a call's bytes to a driver's method, and back
    session.py, auth.py     what a client has opened; who it is
    channel.py, loop.py     bytes to and from a client; waiting for descriptors
    process.py, lean.py     signals, titles; click and setproctitle without their ballast
    log.py                  one line for each event

Imports point down this list; drivers and protocol know nothing of any of it.
"""
