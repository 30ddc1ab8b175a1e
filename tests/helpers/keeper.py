"""A process that keeps what a command leaves behind: the parent of all its orphans, until the last of them has ended.

    python3 keeper.py DESCRIPTOR COMMAND [ARGUMENT ...]

Runs the command with its own standard input, output and error, and writes the command's wait status to DESCRIPTOR
as a decimal number and a line end. It then stays for as long as any descendant of the command lives, wherever that
has gone: daemons that detached themselves are adopted, and reaped when they end. So "did this leave a process
behind?" is a look at a process tree, and needs neither names nor marks, which processes that change their titles do
not keep.

It must not die before its descendants: then nobody would know them. It imports only the standard library and is run
as a file.
"""

import ctypes
import os
import sys

PR_SET_CHILD_SUBREAPER = 36


def main(report: int, command: list[str]) -> None:
    """Run `command`, report its status to the descriptor `report`, and reap until nothing is left."""
    os.set_inheritable(report, False)
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")
    child = os.posix_spawnp(command[0], command, os.environ)
    # Who reads the command's output shall see its end when the command's own processes have closed it.
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in range(3):
        os.dup2(null, descriptor)
    os.setsid()
    while True:
        try:
            pid, status = os.wait()
        except ChildProcessError:
            return
        if pid == child:
            os.write(report, b"%d\n" % status)
            os.close(report)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
