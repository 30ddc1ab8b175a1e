"""virtd: libvirt's remote protocol, served by a process per connection."""

__version__ = "0.1.0"

# What virtd implements, and so what it answers to virConnectGetLibVersion: libvirt 9.0.0.
LIBVIRT_VERSION = 9_000_000
