"""virtsh: the command line client and interactive shell.

It knows drivers only through `virtd.drivers.open_connection`, and so cannot tell guests of this machine, reached in
this very process, from those of a server at the other end of a wire. Nothing below may import the server.

The outer command line (`main`) has commands parsed (`words`, `parse`), each declared by a line in a table of its
module (`commands/`), and run (`run`). Commands call procedures through a `Session` and hand back what they found as
an `output` object, which is printed as virsh prints it, for people, or as JSON.
"""
