"""The QEMU driver: a library over a directory, which knows of no daemon.

Whoever uses it (a server's worker, the command line, another driver) finds the same guests, since all it knows is on
disk: definitions in the configuration, one directory for each running guest at run time (guest.py), and a supervisor
process beside each QEMU (run/supervisor.py).
"""
