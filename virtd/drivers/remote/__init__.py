"""The client side of the wire as a driver: its methods are made from the table and go over a socket."""
