"""What goes over the wire: the table of procedures, types and codecs, framing, streams and keepalive.

Nothing in this package does I/O: it turns bytes into values and messages, and back. It knows nobody else
in virtd but the constants and the error class.
"""
