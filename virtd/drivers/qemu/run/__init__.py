"""From a definition to a running QEMU and to its end: what is prepared, started, watched, and cleaned up."""
