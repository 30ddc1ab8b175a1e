"""What opening a connection imports: little for a program of a moment, everything for a server before it forks."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

from virtd.drivers import LOCAL_SCHEMES, open_connection
from virtd.drivers.base import Context, Identity
from virtd.state import paths

_REPOSITORY = Path(__file__).parents[2]


def _context(root: Path, transport: str) -> Context:
    pid = os.getpid()
    return Context(paths.below(str(root)), Identity(os.geteuid(), os.getegid(), pid, transport), pid)


def _modules(script: str) -> set[str]:
    """The modules of virtd that are loaded at the end of a script."""
    end = "print(*sorted(name for name in sys.modules if name.startswith('virtd') or '.' not in name))"
    result = subprocess.run(
        [sys.executable, "-c", f"import sys\n{script}\n{end}"],
        capture_output=True,
        text=True,
        check=True,
        cwd=_REPOSITORY,
    )
    return set(result.stdout.split())


def test_a_list_in_this_process_loads_little(tmp_path: Path) -> None:
    loaded = _modules(
        f"""
from virtd.shell.session import Session
session = Session(root={str(tmp_path)!r})
assert session.call("connect_list_all_domains", 1, 0) == ([], 0)
"""
    )
    heavy = ("virtd.conf", "virtd.drivers.qemu.run", "virtd.drivers.qemu.monitor", "virtd.drivers.network")
    assert "virtd.drivers.qemu.lookup" in loaded
    assert not [name for name in loaded if name.startswith(heavy)]
    assert not loaded & {"lxml", "dataclasses", "logging", "socket", "virtd.drivers.qemu.driver"}


def test_a_service_does_not_load_the_hypervisor(tmp_path: Path) -> None:
    loaded = _modules(
        f"""
from virtd.shell.session import Session
session = Session(root={str(tmp_path)!r})
assert session.call("connect_list_all_secrets", 1, 0) == ([], 0)
"""
    )
    assert "virtd.drivers.secret.driver" in loaded
    assert "virtd.drivers.qemu.driver" not in loaded


def test_a_server_loads_all_that_its_workers_import_later() -> None:
    """What functions import, for the sake of programs of a moment, is there before the first fork."""
    loaded = _modules(f"from virtd.drivers import local_drivers\nfor one in {LOCAL_SCHEMES}: local_drivers(one)")
    for name in ("driverbase", "guest", "guests", "lookup"):
        tree = ast.parse((_REPOSITORY / f"virtd/drivers/qemu/{name}.py").read_text())
        functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
        for node in (inner for function in functions for inner in ast.walk(function)):
            if isinstance(node, ast.ImportFrom):
                module = f"{node.module}.{node.names[0].name}"
                if not (_REPOSITORY / f"{module.replace('.', '/')}.py").exists():
                    module = str(node.module)
                assert module in loaded or not module.startswith("virtd"), ast.unparse(node)


@pytest.mark.parametrize("transport", ["local", "unix"])
def test_whoever_opens_it_has_all_drivers(tmp_path: Path, transport: str) -> None:
    connection = open_connection(None, _context(tmp_path, transport))
    names = (
        "connect_list_all_domains", "domain_get_vcpus", "connect_list_all_networks", "storage_pool_get_info",
        "secret_get_value", "connect_get_uri",
    )  # fmt: skip
    assert all(connection.method(name) for name in names)
    assert connection.method("no_such_call") is None
    assert connection.require("connect_get_uri", "")() == connection.uri
    connection.close()
