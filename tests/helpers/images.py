"""Disk images for tests, made by qemu-img."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence

__all__ = ["create"]

_ATTEMPTS = 100


def create(arguments: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """`qemu-img create -q ARGUMENTS`, again for as long as it could not measure how fast it derives keys: on a busy
    machine it gives up one time in three.
    """
    for _ in range(_ATTEMPTS):
        command = ["qemu-img", "create", "-q", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if "Unable to get accurate CPU usage" not in done.stderr:
            break
    return done
