"""The clients people have, unmodified: virsh and libvirt-python, by every way in."""

import os
import shutil
import subprocess
import sys

import pytest

from tests.helpers.waiting import wait_for
from tests.server.harness import HERE, TOP, URI

PATH = URI.rpartition("/")[2]
PYTHON = "/usr/bin/python3"  # Debian's, which has python3-libvirt

needs_virsh = pytest.mark.skipif(shutil.which("virsh") is None, reason="needs virsh")


def virsh(uri, *command):
    result = subprocess.run(["virsh", "-c", uri, *command], capture_output=True, text=True, timeout=30)
    return result.returncode, result.stdout.strip(), result.stderr.strip()


def over(server, sock=None):
    return f"qemu+unix:///{PATH}?socket={sock or server.sock}"


@needs_virsh
def test_virsh(server):
    assert virsh(over(server), "domname", "x")[0] == 1
    status, output, _errors = virsh(over(server), "hostname")
    assert status == 0
    assert "transport='unix', read_only=False" in output
    assert virsh(over(server), "start", "quick") == (0, "Domain 'quick' started", "")
    status, _output, errors = virsh(over(server), "start", "error it is broken")
    assert status == 1
    assert errors.endswith("error: operation failed: it is broken")
    status, _output, errors = virsh(over(server), "vncdisplay", "quick")
    assert status == 1


@needs_virsh
def test_virsh_on_the_read_only_socket(server):
    if not os.path.exists(server.ro):
        pytest.skip("only the system's instance has a read-only socket")
    uri = over(server, server.ro)
    assert "read_only=True" in virsh(uri, "hostname")[1]
    status, _output, errors = virsh(uri, "start", "quick")
    assert status == 1
    assert errors.endswith("error: operation forbidden: read only access prevents virDomainCreate")


@needs_virsh
def test_virsh_is_told_the_limit(serve):
    server = serve(config="max_clients = 1\n")
    with server.client() as client:
        client.ping()
        status, _output, errors = virsh(over(server), "hostname")
        assert status == 1
        assert "error: resource busy: too many clients: max_clients = 1 in virtd.conf is reached" in errors


@needs_virsh
def test_virsh_over_tcp(serve):
    server = serve("--listen-tcp", "127.0.0.1:0")
    words = wait_for(lambda: [w for w in server.log.read_text().split() if w.startswith("127.0.0.1:")])
    status, output, errors = virsh(f"qemu+tcp://{words[0].rstrip(',')}/{PATH}", "hostname")
    assert (status, errors) == (0, "")
    assert "transport='tcp'" in output


@needs_virsh
def test_virsh_starts_it_by_itself(tmp_path):
    """As ssh would: a program on standard input and output, by libvirt's own ext transport."""
    script = tmp_path / "serve"
    script.write_text(
        f"#!/bin/sh\nPYTHONPATH={TOP} exec {sys.executable} {HERE / 'fake.py'} --root {tmp_path / 'root'} --inetd\n"
    )
    script.chmod(0o755)
    status, output, errors = virsh(f"qemu+ext:///{PATH}?command={script}", "hostname")
    assert (status, errors) == (0, "")
    assert "transport='stdio'" in output


THREADS = """
import libvirt, sys, threading
connection = libvirt.open(sys.argv[1])
problems = []
def work(number):
    try:
        for _ in range(6):
            assert connection.getLibVersion() == 9000000
            domain = connection.lookupByName(f"sleep 0.0{number % 10}")
            domain.create()
            assert domain.info()[0] == 1
    except Exception as problem:
        problems.append(problem)
threads = [threading.Thread(target=work, args=(number,)) for number in range(24)]
for thread in threads: thread.start()
for thread in threads: thread.join()
connection.close()
print(problems)
"""


def test_many_threads_on_one_connection(server):
    if subprocess.run([PYTHON, "-c", "import libvirt"], capture_output=True).returncode:
        pytest.skip("needs python3-libvirt")
    result = subprocess.run([PYTHON, "-c", THREADS, over(server)], capture_output=True, text=True, timeout=100)
    assert result.stdout.strip() == "[]", result.stderr
    assert "bug" not in server.log.read_text()
