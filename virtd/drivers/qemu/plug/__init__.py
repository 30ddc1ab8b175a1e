"""Devices that come and go: in the configuration, and in a running QEMU."""
