"""QEMU's monitor: the protocol (QMP), a client of one monitor, and questions to many at once."""
