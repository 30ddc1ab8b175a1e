"""Pools that need more of the kernel than this machine has or lets tests touch, in a guest: see guest_pools.py."""

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import lacking
from tests.guests import host, linux


@pytest.mark.timeout(700)
def test_pools_in_a_guest(root: Path, linux_guest: linux.Guest, need_program: Callable[[str], str]) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root")
    try:
        host.find_virtiofsd()
    except FileNotFoundError:
        lacking("virtiofsd")
    for program in ("lvm", "iscsiadm", "tgtd", "rpc.nfsd", "showmount", "dmsetup"):
        need_program(program)
    tests = Path(__file__).with_name("guest_pools.py")
    script = f"""
cd {os.getcwd()}
# Without the plugins that are not needed it starts 20 s earlier.
export PYTEST_DISABLE_PLUGIN_AUTOLOAD=1
{sys.executable} -m pytest -q -p pytest_timeout -p no:cacheprovider --color=no --timeout=0 --basetemp=/run/t {tests}
"""
    status, output = host.run(script, root)
    assert status == 0, output
